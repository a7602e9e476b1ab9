"""The results of a diagnosis: a table, `diagnosis.json`, and the batch file of the prompts that fail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from corrector.detectors import Detector, NotRun
from corrector.diagnosis import PromptDiagnosis
from corrector.evaluation.scorecard_figures import Interval
from corrector.prompts.failing_prompt import slug
from corrector.values import normalised
from jobs.diagnosis.prompts import ListedPrompt, PromptSource
from jobs.inputs.batch_text import (
    TO_COMPLETE,
    WrittenEntry,
    batch_text,
    free_names,
    sections_of,
    to_complete,
    values_of,
)

_SHOWN = 12
"""Seeds that an entry of the batch file lists at most."""
_ROWS = 200
"""Prompts that the table on the terminal lists at most."""

Diagnosed = Sequence[tuple[PromptDiagnosis, ListedPrompt]]
"""The prompts in the order of their rank."""


def table_of(diagnosed: Diagnosed) -> Table:
    """The ranked table for the terminal."""
    table = Table("prompt", "wrong", "rate", "verdict", "by", header_style="bold")
    for each, _ in diagnosed[:_ROWS]:
        failures, others = each.failures(), [name for name in each.findings if name != each.detector]
        seen = [each.detector or "not run", *(f"{name}: {shown(each.rate(name))}" for name in others)]
        seen += [f"{name}: not run, {why}" for name, why in each.not_run.items()]
        more = f" (+{len(each.wordings) - 1})" if len(each.wordings) > 1 else ""
        table.add_row(
            escape(each.prompt + more),
            f"{sum(failures)}/{len(failures)}",
            escape(shown(each.rate())),
            each.verdict,
            escape("\n".join(seen)),
        )
    return table


def shown(rate: Interval | None) -> str:
    """A rate in percent with its interval."""
    if rate is None:
        return "no verdict"
    return f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}]"


def notes_of(detectors: Sequence[Detector], not_run: Sequence[NotRun]) -> list[str]:
    """Sentences about detectors that stopped or did not run."""
    notes = [f"{each.name} stopped: {each.stopped}" for each in detectors if each.stopped]
    return notes + [f"{name}: not run: {why}" for name, why in not_run]


def json_of(
    diagnosed: Diagnosed, detectors: Sequence[Detector], not_run: Sequence[NotRun], **facts: Any
) -> dict[str, Any]:
    """The content of `diagnosis.json`; `facts` stand first."""
    return {
        **facts,
        "detectors": [{"name": each.name, "stopped": each.stopped} for each in detectors],
        "not_run": [each._asdict() for each in not_run],
        "prompts": [_prompt(each) for each, _ in diagnosed],
    }


def failing_batch(diagnosed: Diagnosed, source: PromptSource, base: str, exemplars: str, out: Path) -> str:
    """The text of a batch file at `out` with the prompts that fail, those that fail most first.

    Entries of a batch file stay what they are there. For other prompts `exemplars` is the folder, beside the file, with a
    folder for each.
    """
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    failing = [(each, listed) for each, listed in diagnosed if each.verdict == "fails"]
    head = [f"Prompts that fail; written by `python -m jobs.diagnose` on {written}."]
    sections: dict[str, Any] = {"base": base}
    if source.batch is None:
        head += TO_COMPLETE
    else:
        sections = sections_of(source.batch, base)
    entries = []
    for (each, listed), name in zip(
        failing, free_names(slug(each.prompt) for each, _ in failing), strict=True
    ):
        if source.batch is not None and listed.entry is not None:
            values = values_of(listed.entry, source.batch, out.absolute().parent)
        else:
            texts = {normalised(text): text for text in each.wordings}
            texts.pop(normalised(each.prompt))
            priority = listed.flags or sum(each.failures())
            values = to_complete(name, each.prompt, exemplars, priority, list(texts.values()))
        entries.append(WrittenEntry(values, _comments(each, listed)))
    return batch_text(head, sections, entries)


def _comments(each: PromptDiagnosis, listed: ListedPrompt) -> list[str]:
    failures, seeds = each.failures(), each.failing_seeds
    flagged = f"; flagged {listed.flags} times" if listed.flags else ""
    more = f" and {len(seeds) - _SHOWN} more" if len(seeds) > _SHOWN else ""
    return [
        f"{sum(failures)} of {len(failures)} images wrong, {shown(each.rate())}, by {each.detector}{flagged}",
        f"seeds {', '.join(map(str, seeds[:_SHOWN]))}{more}",
    ]


def _prompt(each: PromptDiagnosis) -> dict[str, Any]:
    rate = each.rate()
    return {
        "prompt": each.prompt,
        "wordings": list(each.wordings),
        "verdict": each.verdict,
        "detector": each.detector,
        "failed": sum(each.failures()),
        "n": len(each.failures()),
        "rate": None if rate is None else rate.model_dump(),
        "failing_seeds": each.failing_seeds,
        "not_run": each.not_run,
        "images": [
            {
                "prompt": text,
                "seed": seed,
                "findings": {
                    name: {
                        "is_right": found[place].is_right,
                        "score": found[place].score,
                        "note": found[place].note,
                    }
                    for name, found in each.findings.items()
                },
            }
            for place, (text, seed) in enumerate(each.rows[: each.drawn])
        ],
    }
