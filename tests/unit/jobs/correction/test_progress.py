"""What a person who waits gets to read."""

from __future__ import annotations

import io

from rich.console import Console

from corrector.registry import RegisteredVersion
from jobs.correction.progress import ProgressLog, print_table
from jobs.correction.results import PromptResult
from jobs.lanes.queue import Progress


def test_a_line_per_change_and_none_without() -> None:
    stream = io.StringIO()
    log = ProgressLog({"w": "person-lying"}, stream, every=1000.0)
    log.update([Progress("w", "waiting", steps=10)])
    log.update([Progress("w", "training", 1, 10, 0.5)])
    log.update([Progress("w", "training", 2, 10, 0.4)])
    log.update([Progress("w", "failed", detail="the loss became nan")])
    lines = stream.getvalue().splitlines()
    assert [line.split()[1:] for line in lines] == [
        ["person-lying", "training", "1/10", "loss", "0.5000"],
        ["person-lying", "failed", "the", "loss", "became", "nan"],
    ]


def test_the_table_names_every_prompt_its_adapter_and_why_the_gate_said_no() -> None:
    adapter = RegisteredVersion("person-lying", "3", "r", (), "0" * 64, None)
    results = [
        PromptResult(
            name="person-lying",
            prompt="a [bold]person[/bold] lying",
            status="rejected",
            reasons=("diversity 0.5 is below 0.8",),
            work_id="w",
            worked=True,
            adapter=adapter,
            folder="f",
        )
    ]
    results.append(
        PromptResult(
            name="dog-sitting",
            prompt="a dog sitting",
            status="corrected",
            grade="improved",
            work_id="v",
            worked=True,
            folder="f",
        )
    )
    stream = io.StringIO()
    print_table(results, Console(file=stream, width=200))
    text = stream.getvalue()
    assert "corrected (improved)" in text
    assert "a [bold]person[/bold] lying" in text
    assert "person-lying v3" in text
    assert "diversity 0.5 is below 0.8" in text
