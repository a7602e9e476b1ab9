"""Runs the system tests again and again beside other work: `python -m tests.benchmarks.rounds [ROUNDS] [PYTEST ARGUMENTS...]`.

A test that waits for events passes every round; one that goes by the clock fails sooner or later. Beside the rounds (ten)
four busy loops run at `nice 10`. The table has a line for each round: its seconds and pytest's closing line. The output of
each round lies in a log file, in a temporary folder that is printed first. Exit status 1 where a round failed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOOPS = 4
TESTS = ("tests/system", "-m", "not slow", "--numprocesses", "logical", "--dist", "loadgroup", "-q")


@contextmanager
def busy_loops() -> Iterator[None]:
    """LOOPS processes that do nothing but take time."""
    loop = ["nice", "-n", "10", sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(loop) for _ in range(LOOPS)]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def main(arguments: Sequence[str]) -> int:
    """Run the rounds; returns the exit status."""
    rounds, *others = arguments or ["10"]
    logs = Path(tempfile.mkdtemp(prefix="rounds-"))
    print(f"logs: {logs}")
    failed = 0
    with busy_loops():
        for number in range(1, int(rounds) + 1):
            begun, log = time.monotonic(), logs / f"round-{number}.log"
            with log.open("w") as output:
                command = [sys.executable, "-m", "pytest", *TESTS, *others]
                status = subprocess.run(
                    command, stdout=output, stderr=subprocess.STDOUT, check=False
                ).returncode
            failed += status != 0
            print(
                f"{number:3d}  {time.monotonic() - begun:6.0f} s  {log.read_text().splitlines()[-1]}",
                flush=True,
            )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
