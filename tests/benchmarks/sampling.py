"""Sampling: what distinct adapters in one batch cost beside the base alone, and what it costs to load one.

    python -m tests.benchmarks.sampling [--rows 8] [--adapters 1 2 4 8] [--out FILE.json]

Times the denoising steps of one shared batch, rounds alternating: the base alone without any adapter machinery, then the
bank with 1, 2, 4 and 8 distinct adapters over the rows, then PEFT's mixed batch with the same adapters. Rows are unguided,
so that every row is one of the transformer's: with guidance two rows share an adapter and it costs less. The VAE is not in
it. With --compile base and bank run compiled, and PEFT is left out. Then the median time to put an adapter from host memory
into a slot: packed beforehand, plain, and by diffusers' hotswap.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from peft import LoraConfig
from peft.tuners.lora.layer import LoraLayer

from corrector.adapters import SD3_TARGETS, Adapter, AdapterBank
from corrector.dreambooth.blocks import compile_blocks
from corrector.sampling import Sampler, SampleRow
from tests.benchmarks import command
from tests.benchmarks.subject import Subject, twin
from tests.benchmarks.timing import Timing, interleaved


def random_adapters(transformer: SD3Transformer2DModel, count: int, rank: int) -> list[Adapter]:
    """``count`` adapters whose updates are not zero, on the CPU in float32."""
    bank = AdapterBank(transformer, slots=1, rank=rank)
    adapters = []
    for seed in range(count):
        bank.initialise(1, rank=rank, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        weights = {
            path: (down, torch.randn(up.shape, generator=generator) * 0.05)
            for path, (down, up) in bank.export(1).weights.items()
        }
        adapters.append(Adapter(rank, float(rank), weights))
    bank.remove()
    return adapters


def spread(rows: int, adapters: int) -> list[int]:
    """The slot of every row: ``adapters`` distinct ones, from 1, in runs as equal as can be; 0 adapters: the base."""
    return [1 + row * adapters // rows if adapters else 0 for row in range(rows)]


class Contest:
    """The same batch of rows sampled by the base, by the bank, and by PEFT, over the same weights."""

    def __init__(self, subject: Subject, options: argparse.Namespace) -> None:
        self._subject = subject
        self._options = options
        self._resolution = options.resolution or subject.default_resolution
        weights = subject.transformer()
        self.base, self.banked, mixed = (twin(weights) for _ in range(3))
        self.adapters = random_adapters(weights, max(options.adapters), options.rank)
        self.bank = AdapterBank(
            self.banked,
            slots=len(self.adapters),
            rank=options.rank,
            dtype=subject.dtype,
            static=bool(options.compile),
        )
        for slot, adapter in enumerate(self.adapters, start=1):
            self.bank.load(slot, adapter)
        if options.compile:
            for transformer in (self.base, self.banked):
                compiled = compile_blocks(transformer, subject.device, options.compile)
                command.check_compiled(options.compile, compiled)
        else:
            self.mixed, self._choose = with_peft(mixed, self.adapters)

    def works(self) -> dict[str, Callable[[], None]]:
        """What is timed, by name: "base", then "bank 1" and "peft 1" and so on."""
        rows = self._options.rows
        works = {"base": self._sampling(self.base, None, [0] * rows)}
        for count in self._options.adapters:
            slots = spread(rows, count)
            works[f"bank {count}"] = self._sampling(self.banked, self.bank, slots)
            if not self._options.compile:
                works[f"peft {count}"] = self._sampling(
                    self.mixed, None, [0] * rows, partial(self._choose, slots)
                )
        return works

    def _sampling(
        self,
        transformer: SD3Transformer2DModel,
        bank: AdapterBank | None,
        slots: Sequence[int],
        before: Callable[[], None] = lambda: None,
    ) -> Callable[[], None]:
        """Some steps of a sampler of its own, whose rows have more steps before them than will be timed."""
        options, generator = self._options, torch.Generator().manual_seed(0)
        sampler = Sampler(
            transformer,
            bank,
            FlowMatchEulerDiscreteScheduler(shift=3.0),
            height=self._resolution,
            width=self._resolution,
            vae_scale_factor=self._subject.vae_scale_factor,
        )
        needed = (options.rounds + options.warmup) * options.steps
        sampler.admit(
            [
                SampleRow(self._subject.texts(1, generator), None, needed + 1, 1.0, slot=slot, seed=seed)
                for seed, slot in enumerate(slots)
            ]
        )

        def run() -> None:
            before()
            for _ in range(options.steps):
                sampler.step()

        return run


def with_peft(
    model: SD3Transformer2DModel, adapters: Sequence[Adapter]
) -> tuple[SD3Transformer2DModel, Callable[[Sequence[int]], None]]:
    """``adapters`` in PEFT's layers of ``model``, and a function that chooses the adapter of every row.

    diffusers has no way to hand PEFT the names of a mixed batch, so that every layer gets them from a hook.
    """
    for slot, adapter in enumerate(adapters, start=1):
        config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=list(SD3_TARGETS))
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Already found a `peft_config`"
            )  # more than one adapter is the point
            model.add_adapter(config, f"slot{slot}")
        for path, (down, up) in adapter.weights.items():
            layer: Any = model.get_submodule(path)
            layer.lora_A[f"slot{slot}"].weight.data.copy_(down)
            layer.lora_B[f"slot{slot}"].weight.data.copy_(up)
    chosen: dict[str, list[str]] = {}

    def name_adapters(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | chosen

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.register_forward_pre_hook(name_adapters, with_kwargs=True)

    def choose(slots: Sequence[int]) -> None:
        chosen["adapter_names"] = [f"slot{slot}" if slot else "__base__" for slot in slots]

    return model.requires_grad_(False).eval(), choose


def loading(contest: Contest, device: torch.device, rounds: int) -> dict[str, Timing]:
    """Time to replace a slot's adapter by another from host memory, in the bank and by diffusers' hotswap."""
    bank, adapters = contest.bank, contest.adapters
    packed = [bank.pack(adapter, pin=device.type == "cuda") for adapter in adapters[:2]]
    swapped = twin(contest.base)
    states = [
        {
            f"transformer.{path}.{name}.weight": weight
            for path, pair in adapter.weights.items()
            for name, weight in zip(("lora_A", "lora_B"), pair, strict=True)
        }
        for adapter in adapters[:2]
    ]
    swapped.load_lora_adapter(dict(states[0]), adapter_name="slot1")
    turn = iter(range(10**9))

    def other() -> int:
        return next(turn) % len(packed)

    return interleaved(
        {
            "packed": lambda: bank.load(1, packed[other()]),
            "plain": lambda: bank.load(1, adapters[other()]),
            "hotswap": lambda: swapped.load_lora_adapter(
                dict(states[other()]), adapter_name="slot1", hotswap=True
            ),
        },
        device=device,
        rounds=rounds,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    options = _parser().parse_args(arguments)
    subject = command.subject(options)
    report = command.Report("sampling", options, subject)
    contest = Contest(subject, options)
    timings = interleaved(
        contest.works(), device=subject.device, rounds=options.rounds, warmup=options.warmup
    )
    resolution = options.resolution or subject.default_resolution
    flops = options.rows * subject.cost.forward_flops(subject.patches(resolution), subject.tokens)
    for name, timing in timings.items():
        engine, _, adapters = name.partition(" ")
        seconds = timing.median / options.steps
        report.add(
            {
                "engine": engine,
                "adapters": int(adapters or 0),
                "rows": options.rows,
                "resolution": resolution,
                "seconds_per_step": seconds,
                "best_seconds_per_step": timing.best / options.steps,
                "images_per_second": options.rows / (seconds * options.inference_steps),
                "speed_of_base": timings["base"].over(timing),
                **report.mfu(flops, seconds),
            }
        )
    for name, timing in loading(contest, subject.device, options.loads).items():
        report.add(
            {
                "loaded_by": name,
                "milliseconds": 1000 * timing.median,
                "best_milliseconds": 1000 * timing.best,
            }
        )
    report.show(f"sampling {options.model}, {options.inference_steps} steps an image", COLUMNS)
    report.show("an adapter from host memory into a slot", LOADING_COLUMNS)


COLUMNS = {
    "engine": "",
    "adapters": "distinct adapters",
    "rows": "rows",
    "resolution": "px",
    "seconds_per_step": "s/step",
    "images_per_second": "images/s",
    "speed_of_base": "of the base's speed",
    "mfu": "MFU",
}
LOADING_COLUMNS = {"loaded_by": "", "milliseconds": "median ms", "best_milliseconds": "best ms"}


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("Speed of sampling with many adapters in a batch.")
    parser.add_argument("--rows", type=int, default=8, help="images in the batch")
    parser.add_argument(
        "--adapters", type=int, nargs="+", default=[1, 2, 4, 8], help="distinct adapters over the rows"
    )
    parser.add_argument("--resolution", type=int, help="pixels a side (default: 512, or the small base's)")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument(
        "--inference-steps", type=int, default=28, help="steps of an image, for images a second"
    )
    command.add_compile(parser)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=2, help="rounds that do not count")
    parser.add_argument("--steps", type=int, default=2, help="denoising steps per round")
    parser.add_argument("--loads", type=int, default=20, help="rounds of loading an adapter")
    return parser


if __name__ == "__main__":
    main()
