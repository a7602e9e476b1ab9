"""The lines of a running search: each score once."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from jobs.lanes.queue import Progress
from jobs.tuning.report import SearchLog
from tests.unit.jobs.tuning.test_queue import opened, plan, report


def test_each_score_is_printed_once(tmp_path: Path) -> None:
    printed = io.StringIO()
    log = SearchLog([plan(tmp_path)], Console(file=printed, width=200))
    queue, trial = opened(tmp_path, {"rank": 2}), plan(tmp_path).trial_id(0)
    log.update(queue.snapshot(), queue.scores(log.printed))
    for rung, steps in enumerate((10, 20)):
        queue.deliver(trial, report(rung, steps))
        for _ in range(2):
            log.update(queue.snapshot(), queue.scores(log.printed))
    for _ in range(2):
        log.update([Progress(trial, "stopped")], queue.scores(log.printed))

    lines = [line.split()[1:5] for line in printed.getvalue().splitlines()]
    assert lines == [
        ["person", "000", "step", "10"],
        ["person", "000", "step", "20"],
        ["person", "000", "stopped"],
    ]
