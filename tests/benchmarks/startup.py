"""Seconds from `make correct` to its first training step, or of short commands, of one checkout or of several in turn.

    python -m tests.benchmarks.startup [CHECKOUT ...] [--rounds 3] [--commands]

Phases are told from what the command prints: `plan` is the lanes' plan, `training` the moment in which a lane has loaded the
base and takes its first step. CPU seconds are those of all processes of the command until then; on a machine that does other
work, too, they and the ratios of one round mean more than seconds. Each command is interrupted there, with nothing kept. With
`--commands` every column is a short command, and its figure the user CPU seconds of the whole command.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.paths import PROJECT

REGISTRY = PROJECT / "tests" / "unit" / "corrector" / "registry" / "golden" / "runs_of_271529c.tar.xz"
"""A small registry that every checkout can open."""
_NAME = "a-person-lying-on-the-grass"
_BATCH = "jobs/examples/people.yaml"
_SIGNS = {"plan": " fine-tunes in ", "training": "  training"}
_PR_SET_CHILD_SUBREAPER = 36


def measure(checkout: Path, folder: Path) -> dict[str, float]:
    """Seconds to every phase of one start."""
    job = ("python", "-m", "jobs.correct", "jobs/examples/people.yaml", f"--storage={folder / 'runs'}")
    local = (sys.executable, "-m", "cluster.local", "run", f"--state={folder}", f"--services={folder}")
    before, started = _cpu_seconds(), time.monotonic()
    command = subprocess.Popen(
        [*local, "--", *job],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert command.stdout is not None
    seconds: dict[str, float] = {}
    for line in command.stdout:
        for phase, sign in _SIGNS.items():
            if sign in line:
                seconds.setdefault(phase, time.monotonic() - started)
        if "training" in seconds:
            break
    seconds["CPU"] = _cpu_seconds() - before
    command.send_signal(signal.SIGINT)
    command.communicate()
    return seconds


def measure_commands(checkout: Path, folder: Path) -> dict[str, float]:
    """User CPU seconds of short commands."""
    with tarfile.open(REGISTRY) as archive:
        archive.extractall(folder, filter="data")
    registry = ("corrector.registry", f"--root={folder / 'runs-of-271529c' / 'registry'}")
    commands = {
        "list": (*registry, "list"),
        "promote": (*registry, "promote", _NAME, "3", "--why=measured"),
        "check": ("corrector.prompts", "check", _BATCH),
        "--plan": ("jobs.correct", _BATCH, "--plan", f"--storage={folder / 'runs'}"),
    }
    seconds: dict[str, float] = {}
    for name, command in commands.items():
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run(
            [sys.executable, "-m", *command],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds[name] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return seconds


def _cpu_seconds() -> float:
    """CPU seconds of all descendants of this process, those included that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = used.ru_utime + used.ru_stime
    for process in psutil.Process().children(recursive=True):
        try:
            total += sum(process.cpu_times()[:4])  # its own, and of its children that have ended
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    """Print a line for every start, and the medians of the rounds' ratios to the first checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[PROJECT], metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commands", action="store_true", help="short commands instead of `make correct`")
    options = parser.parse_args()
    measured_by = measure_commands if options.commands else measure
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans are counted as this process's children
    rounds: list[list[dict[str, float]]] = []
    for number in range(1, options.rounds + 1):
        rounds.append([])
        for checkout in options.checkouts:
            with tempfile.TemporaryDirectory(prefix="startup-") as folder:
                measured = measured_by(checkout.resolve(), Path(folder))
            rounds[-1].append(measured)
            figures = "  ".join(f"{phase} {value:6.2f}" for phase, value in measured.items())
            print(f"round {number}  {figures}  {checkout}", flush=True)
    for index, checkout in enumerate(options.checkouts[1:], start=1):
        ratios = {
            phase: statistics.median(r[index][phase] / r[0][phase] for r in rounds) for phase in rounds[0][0]
        }
        print(
            "ratio    "
            + "  ".join(f"{phase} {ratio:6.2f}" for phase, ratio in ratios.items())
            + f"  {checkout}"
        )


if __name__ == "__main__":
    main()
