"""Where a training step's time goes: fine-tunes packed in one step, and the same one after another.

    python -m tests.benchmarks.profiling [--slots 8] [--batch 4] [--preservation none guard] [--out FILE.json]

Counts the operations' own processor time, or the device's where there is one, by kind; the two ways make the same images.
The profiler slows what it watches, and "other" most: shares say what bounds a step, ``tests.benchmarks.training`` how long
it takes.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from torch.profiler import ProfilerActivity, profile

from tests.benchmarks import command
from tests.benchmarks.machine import synchronise
from tests.benchmarks.training import Setting, Speed, works

KINDS = {
    "products": ("mm", "bmm", "linear", "gemm", "cutlass", "nvjet"),
    "attention": ("attention", "flash", "fmha"),
    "activations": ("gelu", "silu", "sigmoid", "tanh"),
    "norms": ("norm",),
    "elementwise": ("add", "mul", "sub", "div", "copy", "cat", "index", "sum", "pow", "fill", "zero", "elementwise"),
}  # fmt: skip
"""Kind -> parts of operations' names, the first kind that fits counts."""


def kind_of(operation: str) -> str:
    """The kind of an operation or kernel, "other" where none fits."""
    name = operation.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def shares(work: Callable[[], None], device: Any) -> dict[str, float]:
    """Milliseconds of ``work`` by kind, and their number of operations."""
    work()
    synchronise(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        work()
        synchronise(device)
    found = {f"{kind}_ms": 0.0 for kind in (*KINDS, "other")} | {"operations": 0}
    for event in profiler.key_averages():
        spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        found[f"{kind_of(event.key)}_ms"] += spent / 1000
        found["operations"] += event.count if event.key.startswith("aten::") else 0
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    parser = command.parser("Where a training step's time goes.")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[4], help="exemplar rows per fine-tune")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--preservation", nargs="+", choices=["none", "guard"], default=["none", "guard"])
    options = parser.parse_args(arguments)
    subject = command.subject(options)
    speed = Speed(compile=False, checkpointing=False, rounds=1, steps=1, warmup=0, sequential=True)
    report = command.Report("profiling", options, subject)
    transformer = subject.transformer()
    for batch, preservation in product(options.batch, options.preservation):
        setting = Setting(options.slots, batch, subject.default_resolution, options.rank, preservation)
        for way, work in works(subject, transformer, setting, speed).items():
            report.add(
                {"way": way, "batch": batch, "preservation": preservation} | shares(work, subject.device)
            )
    report.show(f"{options.slots * max(options.batch)} exemplar rows of {options.model}, ms", COLUMNS)


COLUMNS = {
    "way": "",
    "batch": "batch",
    "preservation": "preservation",
    **{f"{kind}_ms": kind for kind in (*KINDS, "other")},
    "operations": "operations",
}


if __name__ == "__main__":
    main()
