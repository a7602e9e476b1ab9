"""What the AdapterBank costs beside the plain base and PEFT's mixed batch, in one run on one machine.

``python -m tests.benchmarks.bank [threads]`` prints, for batches of eight rows over one to eight
adapters, the median time of a forward relative to the plain base, by runs of rows and with a static bank,
the largest difference from PEFT, and whether rows of the base are bit-equal to the plain base; then training
steps relative to one PEFT adapter, what rows of low rank pay for a neighbour of high rank, and the time to pack
and to load an adapter, here and at the full size of Stable Diffusion 3 medium. The transformer has the shape of
the embedded base, 5.4 M parameters; processor time is counted, so that a busy machine matters less.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor

from corrector.adapters import SD3_TARGETS, AdapterBank
from tests.benchmarks.subject import Subject
from tests.support.sd3_family import configuration

RANK = 16
HIGH_RANK = 128
ADAPTERS = 8
REPEATS = 7
EMBEDDED = Subject("embedded", None, torch.device("cpu"), torch.float32).config
LAYOUTS = {
    "1 adapter": [1] * 8,
    "2 adapters": [1, 1, 1, 1, 2, 2, 2, 2],
    "4 adapters": [1, 1, 2, 2, 3, 3, 4, 4],
    "8 adapters": [1, 2, 3, 4, 5, 6, 7, 8],
    "8 out of order": [8, 3, 5, 1, 7, 2, 6, 4],
    "4 and the base": [0, 0, 0, 0, 1, 2, 3, 4],
    "unequal runs": [1, 1, 1, 2, 2, 3, 0, 5],
}


def main() -> None:
    """Prints the tables."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    base, inputs = frozen_transformer(), batch()
    banked, bank = with_bank()
    static, static_bank = with_bank(static=True)
    mixed, select = with_peft(bank)

    def forward(model: SD3Transformer2DModel) -> Tensor:
        prediction: Tensor = model(**inputs, return_dict=False)[0]
        return prediction

    with torch.no_grad():
        plain = forward(base)
        print(f"{torch.get_num_threads()} threads; base {1000 * median([lambda: forward(base)])[0]:.1f} ms")
        for name, index in LAYOUTS.items():

            def in_bank(index: list[int] = index) -> Tensor:
                with bank.rows(index):
                    return forward(banked)

            def in_static_bank(index: list[int] = index) -> Tensor:
                with static_bank.rows(index):
                    return forward(static)

            def in_peft(index: list[int] = index) -> Tensor:
                select(index)
                return forward(mixed)

            error = float((in_bank() - in_peft()).abs().max())
            at_base = [row for row, slot in enumerate(index) if slot == 0]
            equal = torch.equal(in_bank()[at_base], plain[at_base]) if at_base else "-"
            once, bank_time, static_time, peft_time = median(
                [lambda: forward(base), in_bank, in_static_bank, in_peft]
            )
            print(
                f"{name:15} bank {bank_time / once:.3f}  static {static_time / once:.3f}  PEFT {peft_time / once:.3f}  "
                f"difference {error:.0e}  base rows bit-equal {equal}"
            )
    measure_training(inputs)
    measure_mixed_ranks(inputs)
    measure_loading("embedded", SD3Transformer2DModel(**EMBEDDED))
    with torch.device("meta"):
        full = SD3Transformer2DModel(**configuration("sd3-medium"))
    measure_loading("SD3-medium", full)


def measure_training(inputs: dict[str, Tensor]) -> None:
    """Forward and backward of the bank against one PEFT adapter for the whole batch."""
    banked, bank = with_bank(trainable=True)
    single = frozen_transformer()
    single.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(SD3_TARGETS)))

    def step(model: SD3Transformer2DModel, parameters: list[torch.nn.Parameter]) -> None:
        model(**inputs, return_dict=False)[0].square().mean().backward()
        for parameter in parameters:
            parameter.grad = None

    for name, index in LAYOUTS.items():

        def in_bank(index: list[int] = index) -> None:
            with bank.rows(index):
                step(banked, bank.parameters())

        one, many = median([lambda: step(single, list(single.parameters())), in_bank])
        print(f"training, {name:15} bank {many / one:.3f} of one PEFT adapter ({1000 * one:.0f} ms)")


def measure_mixed_ranks(inputs: dict[str, Tensor]) -> None:
    """Forward and training step of eight rows at mixed ranks relative to all at the low one."""
    low, high = [RANK] * ADAPTERS, [HIGH_RANK] * ADAPTERS
    works: list[Callable[[], object]] = []
    for ranks in (low, [HIGH_RANK, *low[1:]], low[:4] + high[4:], high):
        model, bank = with_bank(trainable=True, rank=HIGH_RANK)
        for slot, rank in enumerate(ranks, start=1):
            bank.initialise(slot, rank=rank)

        def forward(model: SD3Transformer2DModel = model, bank: AdapterBank = bank) -> None:
            with torch.no_grad(), bank.rows(range(1, ADAPTERS + 1)):
                model(**inputs, return_dict=False)

        def train(model: SD3Transformer2DModel = model, bank: AdapterBank = bank) -> None:
            with bank.rows(range(1, ADAPTERS + 1)):
                model(**inputs, return_dict=False)[0].square().mean().backward()
            for parameter in bank.parameters():
                parameter.grad = None

        works += [forward, train]
    seconds = median(works)
    for place, name in enumerate(("one high", "half high", "all high"), start=1):
        forward_ratio, train_ratio = seconds[2 * place] / seconds[0], seconds[2 * place + 1] / seconds[1]
        print(
            f"rank {RANK} and {HIGH_RANK}, {name:9} forward {forward_ratio:.3f}  training {train_ratio:.3f} "
            f"of all at {RANK}"
        )


def measure_loading(name: str, transformer: SD3Transformer2DModel) -> None:
    """Milliseconds to pack an adapter, to load it packed, and to load it as it is."""
    bank = AdapterBank(transformer, slots=2, rank=RANK, device="cpu")
    bank.initialise(1, rank=RANK)
    adapter = bank.export(1)
    packed = bank.pack(adapter)
    pack, load, plain = (
        1000 * seconds
        for seconds in median(
            [lambda: bank.pack(adapter), lambda: bank.load(2, packed), lambda: bank.load(2, adapter)]
        )
    )
    megabytes = packed.values.nbytes / 1e6
    print(
        f"{name}, rank {RANK}, {len(bank.targets)} layers, {megabytes:.1f} MB: pack {pack:.2f} ms, "
        f"load packed {load:.2f} ms, load as it is {plain:.2f} ms"
    )


def frozen_transformer() -> SD3Transformer2DModel:
    torch.manual_seed(0)
    return SD3Transformer2DModel(**EMBEDDED).requires_grad_(False).eval()


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(8, 16, 16, 16, generator=generator),
        "encoder_hidden_states": torch.randn(8, 32, 128, generator=generator),
        "pooled_projections": torch.randn(8, 128, generator=generator),
        "timestep": torch.rand(8, generator=generator) * 1000,
    }


def with_bank(
    *, trainable: bool = False, static: bool = False, rank: int = RANK
) -> tuple[SD3Transformer2DModel, AdapterBank]:
    model = frozen_transformer()
    bank = AdapterBank(model, slots=ADAPTERS, rank=rank, trainable=trainable, static=static)
    for slot in range(1, ADAPTERS + 1):
        bank.initialise(slot, rank=RANK, seed=slot)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in bank.named_parameters():
            if name.endswith("lora_B"):
                parameter[1:] = torch.randn(parameter[1:].shape, generator=generator) * 0.05
    return model, bank


def with_peft(bank: AdapterBank) -> tuple[SD3Transformer2DModel, Callable[[list[int]], None]]:
    """The same adapters in PEFT's layers, and a function that chooses the adapter of every row."""
    model = frozen_transformer()
    for slot in range(1, ADAPTERS + 1):
        model.add_adapter(
            LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(SD3_TARGETS)), f"slot{slot}"
        )
        for path, (down, up) in bank.export(slot).weights.items():
            layer: Any = model.get_submodule(path)
            layer.lora_A[f"slot{slot}"].weight.data.copy_(down)
            layer.lora_B[f"slot{slot}"].weight.data.copy_(up)
    model.eval()
    chosen: dict[str, list[str]] = {}

    def name_adapters(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | chosen

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.register_forward_pre_hook(name_adapters, with_kwargs=True)

    def select(index: list[int]) -> None:
        chosen["adapter_names"] = [f"slot{slot}" if slot else "__base__" for slot in index]

    return model, select


def median(works: list[Callable[[], object]]) -> list[float]:
    """Median processor seconds of each of ``works``, taken in turn so that a busy machine slows all alike."""
    seconds: list[list[float]] = [[] for _ in works]
    for repeat in range(REPEATS + 1):
        for work, taken in zip(works, seconds, strict=True):
            start = time.process_time()
            work()
            if repeat:
                taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in seconds]


if __name__ == "__main__":
    main()
