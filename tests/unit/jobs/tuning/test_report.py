"""The lines of a running search: each score once, from journals that are read when they change."""

from __future__ import annotations

import io
import os
from pathlib import Path

from rich.console import Console

from jobs.lanes.queue import Progress
from jobs.tuning.report import SearchLog
from tests.unit.jobs.tuning.test_queue import FEATURES, plan, report


def test_each_score_is_printed_once_and_unchanged_journals_are_not_read_again(tmp_path: Path) -> None:
    printed = io.StringIO()
    log = SearchLog([plan(tmp_path)], Console(file=printed, width=200))
    folder, trial = plan(tmp_path).trial_folder(0), plan(tmp_path).trial_id(0)
    folder.begin({"rank": 2})
    log.update([Progress(trial, "waiting")])
    folder.add_report(report(0, 10), FEATURES)
    log.update([Progress(trial, "training")])

    journal = folder.path / "reports.json"
    times = journal.stat().st_atime_ns, journal.stat().st_mtime_ns
    whole = journal.read_text()
    journal.write_text("not to be read")
    os.utime(journal, ns=times)
    log.update([Progress(trial, "training")])

    journal.write_text(whole)
    folder.add_report(report(1, 20), FEATURES)
    for _ in range(2):
        log.update([Progress(trial, "stopped")])

    lines = [line.split()[1:5] for line in printed.getvalue().splitlines()]
    assert lines == [
        ["person", "000", "step", "10"],
        ["person", "000", "step", "20"],
        ["person", "000", "stopped"],
    ]
