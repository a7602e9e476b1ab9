"""Every figure of the README's tables in one command, each benchmark in a process of its own.

    python -m tests.benchmarks.all --out-folder tests/benchmarks/results [--reference PATH] [--only NAME ...] [--quick]

Writes ``<machine>-<name>.json`` as soon as a benchmark is done. One that fails or outlasts its share of --minutes is named at
the end, and the others go on; the exit status is 1 then. --quick shrinks everything, to see that it runs.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.machine import slug


@dataclass(frozen=True)
class Benchmark:
    """One command and what it may take."""

    name: str
    command: str
    """Module and arguments."""
    minutes: float
    """Longest that it may take."""
    reference: bool = False
    """Whether it times diffusers' script too, where a checkout is given."""


_TURNS = "--rounds 3 --steps 4"
_LARGE = "--model sd3.5-medium --slots 1 2 --batch 3 --rank 128 --resolution 1024"

ON_GPU = (
    Benchmark(
        "training-512", f"training --model sd3-medium --slots 1 2 4 8 16 --sequential {_TURNS}", 6, True
    ),
    Benchmark("training-512-compiled", f"training --model sd3-medium --slots 1 8 16 --compile {_TURNS}", 4),
    Benchmark("end-to-end-512", "end_to_end --model sd3-medium --prompts 16 --steps 500 --compile", 8, True),
    Benchmark("memory-512", "memory --model sd3-medium --slots 1 2 4 8 16", 2, True),
    Benchmark("serving-512", "serving --model sd3-medium --compile", 4),
    Benchmark("training-1024", f"training {_LARGE} {_TURNS}", 4, True),
    Benchmark("training-1024-compiled", f"training {_LARGE} {_TURNS} --compile", 4),
    Benchmark("sampling-512", "sampling --model sd3-medium", 2),
    Benchmark("sampling-512-compiled", "sampling --model sd3-medium --compile", 3),
    Benchmark("memory-1024", f"memory {_LARGE}", 2, True),
    Benchmark("memory-512-checkpointing", "memory --model sd3-medium --slots 1 4 16 --checkpointing", 2),
    Benchmark("training-512-ranks", f"training --model sd3-medium --slots 8 --rank 4 128 {_TURNS}", 2),
    Benchmark(
        "training-512-guard", f"training --model sd3-medium --slots 8 --preservation guard {_TURNS}", 2
    ),
    Benchmark("training-512-batch-4", f"training --model sd3-medium --slots 1 8 --batch 4 {_TURNS}", 2),
    Benchmark("profiling-512", "profiling --model sd3-medium --batch 1", 2),
    Benchmark("training-large-512", f"training --model sd3.5-large --slots 1 4 {_TURNS}", 3),
)
"""In the order of what matters most, should the time run out."""

ON_CPU = (
    Benchmark("training-embedded", "training --model embedded --slots 1 2 4 8 16 --sequential", 5),
    Benchmark(
        "training-embedded-batch-4",
        "training --model embedded --slots 8 --batch 4 --preservation none guard --sequential",
        5,
    ),
    Benchmark("training-embedded-ranks", "training --model embedded --slots 8 --rank 4 128 --sequential", 5),
    Benchmark("training-embedded-reference", "training --model embedded --slots 1 8", 5, True),
    Benchmark("profiling-embedded", "profiling --model embedded", 3),
    Benchmark("sampling-embedded", "sampling --model embedded", 5),
    Benchmark("serving-embedded", "serving --model embedded", 12),
    Benchmark("endpoint", "endpoint", 10),
    Benchmark("end-to-end-embedded", "end_to_end --model embedded --prompts 8 --steps 30 --alone 2", 5, True),
    Benchmark("memory-embedded", "memory --model embedded --slots 1 2 4 8 16", 5),
    Benchmark("memory-two-layers", "memory --model sd3-medium --layers 2 --slots 1 2", 5),
    Benchmark(
        "memory-two-layers-bfloat16", "memory --model sd3.5-medium --layers 2 --slots 1 2 --dtype bfloat16", 5
    ),
)

QUICK = (
    Benchmark("training", "training --model small --slots 1 2 --sequential --rounds 2 --steps 1", 2, True),
    Benchmark("memory", "memory --model small --slots 1 2", 2),
    Benchmark(
        "sampling",
        "sampling --model small --rows 2 --adapters 1 2 --rank 4 --rounds 2 --warmup 1 --loads 2",
        2,
    ),
    Benchmark(
        "end-to-end", "end_to_end --model small --prompts 2 --steps 8 --slots 2 --reference-steps 6", 2, True
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module. Returns the exit status."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    chosen = QUICK if options.quick else ON_GPU if device.type == "cuda" else ON_CPU
    known = [benchmark.name for benchmark in chosen]
    for name in options.only:
        if name not in known:
            print(f"no benchmark {name} here; there are {', '.join(known)}", file=sys.stderr)
            return 2
    deadline = time.monotonic() + 60 * options.minutes
    failed = []
    for benchmark in chosen:
        if options.only and benchmark.name not in options.only:
            continue
        out = options.out_folder / f"{slug(device)}-{benchmark.name}.json"
        start = time.monotonic()
        print(f"{benchmark.name}: {benchmark.command}", flush=True)
        problem = run(benchmark, out, options, limit=min(60 * benchmark.minutes, deadline - start))
        print(f"{benchmark.name}: {problem or 'done'} after {time.monotonic() - start:.0f} s\n", flush=True)
        if problem:
            failed.append(f"{benchmark.name}: {problem}")
    print("\n".join(["not measured:", *failed]) if failed else "all measured")
    return 1 if failed else 0


def run(benchmark: Benchmark, out: Path, options: argparse.Namespace, *, limit: float) -> str | None:
    """Runs ``benchmark`` for at most ``limit`` seconds; what went wrong, or None."""
    if limit <= 0:
        return "no time left"
    module, *own = benchmark.command.split()
    command = [
        sys.executable,
        "-m",
        f"tests.benchmarks.{module}",
        *own,
        "--device",
        options.device,
        "--out",
        str(out),
    ]
    if options.threads:
        command += ["--threads", str(options.threads)]
    if benchmark.reference and options.reference:
        command += ["--reference", str(options.reference)]
    try:
        status = subprocess.run(command, check=False, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    return f"exit status {status}" if status else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="All benchmarks, one after another.")
    parser.add_argument(
        "--out-folder", type=Path, required=True, metavar="FOLDER", help="where the JSON files go"
    )
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of huggingface/diffusers")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these of the benchmarks")
    parser.add_argument("--minutes", type=float, default=25, help="longest that all of them may take")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
