"""Lanes on one machine's CPUs: one with all threads, or one for every core, on an idle machine and on one that others use.

    python -m tests.benchmarks.lanes [--slots 8] [--batch 1] [--seconds 15] [--rounds 3] [--out FILE.json]

Each lane is a process with an engine of its own, and the slots are divided among them; an image is one exemplar row that went
through an optimiser step, with a guard row beside it. "busy" adds processes that wake every 50 ms and compute for 1.5 ms, as a
node's Ray, the driver and dozens of trials do. Rounds alternate between the settings.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from rich.console import Console
from rich.table import Table

from corrector.dreambooth import Engine
from jobs.inputs.ray_tasks import bound_threads
from tests.benchmarks import command, training
from tests.benchmarks.subject import Subject

WAKERS = 15
"""Processes that disturb; see the module."""
WAKER = """
import time
while True:
    until = time.perf_counter() + 0.0015
    while time.perf_counter() < until:
        pass
    time.sleep(0.05)
"""
WARM_UP_STEPS = 2


def advance(threads: int, slots: int, batch: int, seconds: float, start: Any, steps: Any) -> None:
    """What a lane's process does: step for `seconds` from the moment that all are ready, and tell how many steps it made."""
    bound_threads(threads)
    command.be_quiet()
    subject = Subject("embedded", None, torch.device("cpu"), torch.float32)
    setting = training.Setting(slots, batch, subject.default_resolution, 16, "guard")
    tasks = subject.fine_tunes(setting.hyperparameters(), setting.resolution)
    engine = Engine(subject.transformer(), FlowMatchEulerDiscreteScheduler(shift=3.0), slots=slots, rank=16)
    for task in tasks:
        engine.admit(task)
    for _ in range(WARM_UP_STEPS):
        engine.step()
    start.wait()
    until = time.monotonic() + seconds
    made = 0
    while time.monotonic() < until:
        engine.step()
        made += 1
    steps.put(made / (time.monotonic() - until + seconds))


def images_per_second(lanes: int, threads: int, options: argparse.Namespace) -> float:
    """Of all lanes together."""
    context = multiprocessing.get_context("spawn")
    start, steps = context.Barrier(lanes), context.Queue()
    slots = options.slots // lanes
    processes = [
        context.Process(target=advance, args=(threads, slots, options.batch, options.seconds, start, steps))
        for _ in range(lanes)
    ]
    for process in processes:
        process.start()
    rate = sum(steps.get() for _ in processes)
    for process in processes:
        process.join()
    return rate * slots * options.batch


@contextmanager
def disturbed(busy: bool) -> Iterator[None]:
    """With the processes that disturb, or without."""
    wakers = [subprocess.Popen([sys.executable, "-S", "-c", WAKER]) for _ in range(WAKERS if busy else 0)]
    try:
        yield
    finally:
        for waker in wakers:
            waker.kill()
            waker.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description="Lanes that share one machine's CPUs.")
    parser.add_argument("--slots", type=int, default=8, help="fine-tunes in all lanes together")
    parser.add_argument("--batch", type=int, default=1, help="exemplar rows per fine-tune and step")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file for the figures")
    options = parser.parse_args(arguments)
    cores = os.cpu_count() or 1
    settings = [
        (lanes, cores // lanes, busy) for busy in (False, True) for lanes in dict.fromkeys((1, cores))
    ]
    found: dict[tuple[int, int, bool], list[float]] = {setting: [] for setting in settings}
    for _ in range(options.rounds):
        for lanes, threads, busy in settings:
            with disturbed(busy):
                found[lanes, threads, busy].append(images_per_second(lanes, threads, options))
    rows = [
        {
            "lanes": lanes,
            "threads": threads,
            "busy": busy,
            "images_per_second": median(rates),
            "rounds": rates,
        }
        for (lanes, threads, busy), rates in found.items()
    ]
    table = Table("lanes", "threads of each", "machine", "images/s", title="lanes of one machine")
    for row in rows:
        name = "busy" if row["busy"] else "idle"
        table.add_row(str(row["lanes"]), str(row["threads"]), name, f"{row['images_per_second']:.1f}")
    Console().print(table)
    command.cpu_results("lanes", options, rows)


if __name__ == "__main__":
    main()
