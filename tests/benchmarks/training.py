"""Training: images a second, and the share of the machine's arithmetic that they reach.

    python -m tests.benchmarks.training [--slots 1 2 4 8 16] [--sequential] [--reference PATH] [--out FILE.json]

Every combination of --slots, --batch, --resolution, --rank and --preservation is one line. An image is one exemplar row
that went through an optimiser step; with guard preservation its guard row comes on top. MFU is the model's operations a
second, counted from its configuration, over the rate of a large matrix product measured on the same machine; what
checkpointing computes again does not count. With --sequential the same fine-tunes also run one after another, in an
engine of one slot; rounds alternate, so that a busy machine slows both alike. diffusers' script cannot take turns: it runs
one fine-tune right after each pack.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from corrector.dreambooth import Engine, FineTune
from corrector.prompts import HyperParameters
from tests.benchmarks import command
from tests.benchmarks.machine import release_memory
from tests.benchmarks.reference import Reference, reference
from tests.benchmarks.subject import Subject, twin
from tests.benchmarks.timing import Timing, interleaved

REPORT_EVERY = 10
"""Steps between two waits for the device to fetch losses, as in a job."""


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    slots: int
    batch: int
    resolution: int
    rank: int
    preservation: str

    def hyperparameters(self) -> list[HyperParameters]:
        """One for every slot, for fine-tunes that do not end."""
        return [
            HyperParameters(
                rank=self.rank,
                batch_size=self.batch,
                steps=100_000,
                seed=seed,
                preservation="guard" if self.preservation == "guard" else "none",
            )
            for seed in range(self.slots)
        ]


@dataclass(frozen=True)
class Speed:
    """How the engine is asked to run."""

    compile: str | bool
    checkpointing: bool
    rounds: int
    steps: int | None
    warmup: int
    sequential: bool

    def steps_of(self, slots: int) -> int:
        """Steps in a round of a pack of ``slots``: unless they are given, as many as make a round long enough to time."""
        return self.steps or max(1, 2 * REPORT_EVERY // slots)


def measure(
    subject: Subject, transformer: SD3Transformer2DModel, setting: Setting, speed: Speed
) -> dict[str, Timing]:
    """Seconds of a round of the pack, and, if asked for, of as many steps of each of its fine-tunes alone."""
    timed = works(subject, transformer, setting, speed)
    return interleaved(timed, device=subject.device, rounds=speed.rounds, warmup=speed.warmup)


def works(
    subject: Subject, transformer: SD3Transformer2DModel, setting: Setting, speed: Speed
) -> dict[str, Callable[[], None]]:
    """A round of the pack, "packed", and, if asked for, as many steps of each of its fine-tunes, "alone"."""
    release_memory(subject.device)
    tasks = subject.fine_tunes(setting.hyperparameters(), setting.resolution)
    packed = _engine(transformer, setting.slots, tasks, setting.rank, speed)
    steps = speed.steps_of(setting.slots)
    found = {"packed": _steps(packed, steps)}
    if speed.sequential and setting.slots > 1:
        alone = _engine(transformer, 1, tasks[:1], setting.rank, speed)
        found["alone"] = _steps(alone, steps * setting.slots)
    return found


def outcome(
    report: command.Report, subject: Subject, setting: Setting, speed: Speed, timings: dict[str, Timing]
) -> dict[str, Any]:
    """The figures of one line; throughput is the median round's."""
    settings = setting.hyperparameters()
    flops = sum(subject.step_flops(each, setting.resolution) for each in settings)
    packed, steps = timings["packed"], speed.steps_of(setting.slots)
    images = setting.slots * setting.batch * steps
    row: dict[str, Any] = asdict(setting) | {
        "step_flops": flops,
        "seconds_per_step": packed.median / steps,
        "best_seconds_per_step": packed.best / steps,
        "images_per_second": images / packed.median,
        **report.mfu(flops, packed.median / steps),
    }
    if "alone" in timings:
        row |= {
            "sequential_images_per_second": images / timings["alone"].median,
            "packed_over_sequential": timings["alone"].over(packed),
        }
    return row


def of_reference(
    script: Reference, setting: Setting, speed: Speed, images_per_second: float
) -> dict[str, float]:
    """The script's own speed with one fine-tune of ``setting``, and how many times as fast the pack is."""
    steps = max(6, speed.rounds * speed.steps_of(1))
    run = script.train(setting.hyperparameters()[0], steps=steps, checkpointing=speed.checkpointing)
    return {
        "reference_seconds_per_step": run.seconds_per_step,
        "reference_images_per_second": setting.batch / run.seconds_per_step,
        "packed_over_reference": images_per_second * run.seconds_per_step / setting.batch,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    options = _parser().parse_args(arguments)
    subject = command.subject(options)
    speed = Speed(
        compile=options.compile,
        checkpointing=options.checkpointing,
        rounds=options.rounds,
        steps=options.steps,
        warmup=options.warmup,
        sequential=options.sequential,
    )
    report = command.Report("training", options, subject)
    for resolution in options.resolution or [subject.default_resolution]:
        with ExitStack() as stack:
            script = None
            if options.reference is not None:
                script = stack.enter_context(reference(subject, resolution, options.reference))
            transformer = subject.transformer()
            for batch, rank, preservation, slots in product(
                options.batch, options.rank, options.preservation, options.slots
            ):
                setting = Setting(slots, batch, resolution, rank, preservation)
                row = outcome(report, subject, setting, speed, measure(subject, transformer, setting, speed))
                if script is not None and preservation == "none":  # the script knows no guard prompts
                    row |= of_reference(script, setting, speed, row["images_per_second"])
                report.add(row)
    report.show(f"training {options.model}", COLUMNS)


COLUMNS = {
    "slots": "slots",
    "batch": "batch",
    "resolution": "px",
    "rank": "rank",
    "preservation": "preservation",
    "images_per_second": "images/s",
    "seconds_per_step": "s/step",
    "mfu": "MFU",
    "mfu_of_vendor_rate": "of vendor's",
    "sequential_images_per_second": "one after another",
    "packed_over_sequential": "ratio",
    "reference_images_per_second": "reference",
    "packed_over_reference": "ratio",
}


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("Images a second and MFU of training.")
    parser.add_argument(
        "--slots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="fine-tunes in the pack"
    )
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1], help="exemplar rows per fine-tune and step"
    )
    parser.add_argument(
        "--resolution", type=int, nargs="+", help="pixels a side (default: 512, or the small base's)"
    )
    parser.add_argument("--rank", type=int, nargs="+", default=[16])
    parser.add_argument("--preservation", nargs="+", choices=["none", "guard"], default=["none"])
    command.add_compile(parser)
    parser.add_argument(
        "--checkpointing", action="store_true", help="compute activations again in the backward"
    )
    parser.add_argument("--sequential", action="store_true", help="also one fine-tune after another")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--steps", type=int, help="steps per round (default: 20 over the slots)")
    return parser


def _engine(
    transformer: SD3Transformer2DModel, slots: int, tasks: Sequence[FineTune], rank: int, speed: Speed
) -> Engine:
    """An engine with ``tasks`` under way, on a module of its own over the transformer's weights."""
    engine = Engine(
        twin(transformer),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        slots=slots,
        rank=rank,
        report_every=REPORT_EVERY,
        compile=speed.compile,
        checkpointing=speed.checkpointing,
    )
    command.check_compiled(speed.compile, engine.compiled)
    for task in tasks:
        engine.admit(task)
    return engine


def _steps(engine: Engine, count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            engine.step()

    return run


if __name__ == "__main__":
    main()
