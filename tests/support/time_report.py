"""A pytest plugin that says at the end where a run's time went, and how fast the machine is.

It prints the ten slowest tests, every test over its budget (5 s a unit test, 60 s a system test, its setup included), and how
often which programs were started. A test over its budget does not fail: machines differ by a factor of two. A fixed piece of
work, timed at the start, says how fast this one is.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

UNIT_SECONDS, SYSTEM_SECONDS = 5.0, 60.0
SLOWEST = 10


def fixed_work() -> float:
    """Seconds of CPU that a fixed piece of pure Python takes."""
    begun = time.process_time()
    total = 0
    for number in range(6_000_000):
        total += number * number % 7
    return time.process_time() - begun


class TimeReport:
    """Collects, in every process, what was started; in the one that reports, how long tests took."""

    def __init__(self, config: pytest.Config) -> None:
        self._worker = hasattr(config, "workeroutput")
        self._grouped = config.getoption("dist", "no") == "loadgroup"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started: Counter[str] = Counter()
        self._machine = 0.0 if self._worker else fixed_work()
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            self._started[program(arguments[1])] += 1

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up setup, call and teardown."""
        self._seconds[self._name(report.nodeid)] += report.duration

    def _name(self, nodeid: str) -> str:
        """The id of a test without the group that xdist adds to it."""
        return nodeid.rpartition("@")[0] if self._grouped else nodeid

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands over what it started."""
        if self._worker:
            session.config.workeroutput["started"] = dict(self._started)  # type: ignore[attr-defined]  # of xdist

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add what a worker of xdist started."""
        self._started.update(getattr(node, "workeroutput", {}).get("started", {}))

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the report."""
        if not self._seconds:
            return
        terminalreporter.section("time")
        terminalreporter.write_line(f"fixed work on this machine: {self._machine:.2f} s of CPU")
        ranked = sorted(self._seconds.items(), key=lambda item: -item[1])
        for name, seconds in ranked[:SLOWEST]:
            terminalreporter.write_line(f"{seconds:7.1f} s  {name}")
        over = [(name, seconds) for name, seconds in ranked if seconds > budget(name)]
        terminalreporter.write_line(f"over budget: {len(over)}" + ("" if over else " tests"))
        for name, seconds in over:
            terminalreporter.write_line(f"{seconds:7.1f} s of {budget(name):g}  {name}")
        started = ", ".join(f"{name} {count}" for name, count in self._started.most_common(SLOWEST))
        terminalreporter.write_line(f"programs started: {started or 'none'}")


def budget(nodeid: str) -> float:
    """Seconds that a test may take."""
    return UNIT_SECONDS if nodeid.startswith("tests/unit/") else SYSTEM_SECONDS


def program(command: Sequence[Any] | str | bytes) -> str:
    """What a command line runs: the module of `python -m` with its first argument, or the program."""
    if isinstance(command, str | bytes):
        return "shell"
    words = [str(word) for word in command]
    name = Path(words[0]).name
    if name.startswith("python"):
        if "-m" in words:
            module, *rest = words[words.index("-m") + 1 :]
            if module in ("ray.scripts.scripts", "cluster.local", "cluster.services") and rest:
                return f"{'ray' if module.startswith('ray') else module} {rest[0]}"
            return module
        return "python -c" if "-c" in words else "python"
    return name


def pytest_configure(config: pytest.Config) -> None:
    """Register one reporter in every process."""
    config.pluginmanager.register(TimeReport(config), "time-report")
