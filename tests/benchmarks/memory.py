"""Memory: the most that a training lane holds at once, measured, beside what the planner says it will need.

    python -m tests.benchmarks.memory [--slots 1 2 4 8 16] [--checkpointing] [--reference PATH] [--out FILE.json]

Counted is the base as it lies in memory and whatever three steps hold beyond it at most. On a GPU that is
``torch.cuda.max_memory_allocated``; on a CPU it is the same count of living tensor bytes, taken from the events of PyTorch's
allocator, without what libraries allocate for themselves.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.profiler import ProfilerActivity, profile

from corrector.dreambooth import Engine
from corrector.dreambooth.pack_plan import PackPlan, plan_packs
from corrector.prompts import HyperParameters
from tests.benchmarks import command
from tests.benchmarks.machine import release_memory
from tests.benchmarks.reference import reference
from tests.benchmarks.subject import Subject

STEPS = 3
"""The second step is the first with the optimiser's state beside gradients and activations."""
_UNBOUNDED = 2**60


@dataclass(frozen=True)
class Peak:
    """The most that was held at once."""

    allocated: int
    """Bytes of living tensors."""
    reserved: int | None
    """Bytes that PyTorch's allocator took from the GPU, rounding and gaps included; None on a CPU."""


def peak_of(work: Callable[[], object], device: torch.device) -> Peak:
    """What ``work`` held at most beyond what was there before."""
    release_memory(device)
    if device.type == "cpu":
        return Peak(_peak_on_cpu(work), None)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return Peak(torch.cuda.max_memory_allocated(device) - before, torch.cuda.max_memory_reserved(device))


def _peak_on_cpu(work: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    recorded = profiler.profiler
    assert recorded is not None and recorded.kineto_results is not None
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in recorded.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def measured(
    subject: Subject, settings: Sequence[HyperParameters], resolution: int, *, checkpointing: bool
) -> Peak:
    """The most that a pack of ``settings`` holds, the base included."""
    transformer = subject.transformer()
    tasks = subject.fine_tunes(settings, resolution)

    def train() -> None:
        engine = Engine(
            transformer,
            FlowMatchEulerDiscreteScheduler(shift=3.0),
            slots=len(settings),
            rank=max(each.rank for each in settings),
            checkpointing=checkpointing,
        )
        for task in tasks:
            engine.admit(task)
        for _ in range(STEPS):
            engine.step()

    peak = peak_of(train, subject.device)
    return replace(peak, allocated=peak.allocated + subject.weights_bytes)


def predicted(
    subject: Subject, settings: Sequence[HyperParameters], resolution: int, *, checkpointing: bool
) -> PackPlan:
    """The planner's figures for one lane of all ``settings``; whether to checkpoint is not left to it."""
    plan = plan_packs(
        subject.config,
        settings,
        resolution=resolution,
        vae_scale_factor=subject.vae_scale_factor,
        tokens=subject.tokens,
        memory_bytes=_UNBOUNDED,
        lanes=1,
        dtype=subject.dtype,
        max_slots=len(settings),
        weights_bytes=subject.weights_bytes,
    )
    if not checkpointing:
        return plan
    row = subject.cost.activation_bytes(
        subject.patches(resolution),
        subject.tokens,
        subject.dtype.itemsize,
        rank=plan.rank,
        checkpointing=True,
    )
    return replace(plan, checkpointing=True, activations_bytes=plan.rows * row)


def outcome(subject: Subject, slots: int, resolution: int, options: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    settings = [
        HyperParameters(
            rank=options.rank, batch_size=options.batch, preservation=options.preservation, seed=seed
        )
        for seed in range(slots)
    ]
    plan = predicted(subject, settings, resolution, checkpointing=options.checkpointing)
    peak = measured(subject, settings, resolution, checkpointing=options.checkpointing)
    return {
        "slots": slots,
        "batch": options.batch,
        "resolution": resolution,
        "rank": options.rank,
        "checkpointing": options.checkpointing,
        "measured_bytes": peak.allocated,
        "reserved_bytes": peak.reserved,
        "predicted_bytes": plan.memory_bytes,
        "predicted_weights_bytes": plan.weights_bytes,
        "predicted_adapters_bytes": plan.adapters_bytes,
        "predicted_activations_bytes": plan.activations_bytes,
        "predicted_over_measured": plan.memory_bytes / peak.allocated,
        "measured_mib": peak.allocated / 2**20,
        "predicted_mib": plan.memory_bytes / 2**20,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    options = _parser().parse_args(arguments)
    subject = command.subject(options)
    resolution = options.resolution or subject.default_resolution
    report = command.Report("memory", options, subject)
    with ExitStack() as stack:
        of_script: dict[str, Any] = {}
        if options.reference is not None:
            script = stack.enter_context(reference(subject, resolution, options.reference))
            one = HyperParameters(rank=options.rank, batch_size=options.batch, preservation="none")
            run = script.train(one, steps=STEPS + 2, checkpointing=options.checkpointing)
            of_script = {"reference_bytes": run.peak_bytes}
        for slots in options.slots:
            report.add(outcome(subject, slots, resolution, options) | of_script)
    report.show(f"memory of training {options.model}", COLUMNS)


COLUMNS = {
    "slots": "slots",
    "batch": "batch",
    "resolution": "px",
    "rank": "rank",
    "measured_mib": "measured MiB",
    "predicted_mib": "planner MiB",
    "predicted_over_measured": "planner / measured",
    "reference_bytes": "reference, one fine-tune, bytes",
}


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("Peak memory of training, measured and predicted.")
    parser.add_argument(
        "--slots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="fine-tunes in the pack"
    )
    parser.add_argument("--batch", type=int, default=1, help="exemplar rows per fine-tune and step")
    parser.add_argument("--resolution", type=int, help="pixels a side (default: 512, or the small base's)")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--preservation", choices=["none", "guard"], default="none")
    parser.add_argument(
        "--checkpointing", action="store_true", help="compute activations again in the backward"
    )
    return parser


if __name__ == "__main__":
    main()
