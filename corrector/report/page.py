"""The page for people: one self-contained HTML file about every prompt of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from corrector.files import write_atomically
from corrector.record.correction import CorrectionRecord
from corrector.report.prompts import Budget, prompt_view

_WORDS = {"corrected": "corrected", "rejected": "rejected by the gate", "failed": "failed"}


def write_report(
    records: Sequence[tuple[Path, CorrectionRecord]], path: Path, *, title: str, job: Mapping[str, Any]
) -> Path:
    """Write the report of a run as one HTML file without scripts or references to anything outside.

    Whatever comes from records is escaped. Small images are embedded as they are, large ones reduced to 512
    pixels or less; a run of many prompts shows a sample of each.

    Args:
        records: Record folders with their records, in the order of the page.
        path: Written whole or not at all.
        job: Facts about the run for the top of the page, name to value, in order. The key "adapters" is not
            shown there: it maps a prompt's name to how the registry knows its adapter.

    Returns:
        `path`.
    """
    facts = dict(job)
    adapters = facts.pop("adapters", {})
    budget = Budget.of(len(records))
    views = [
        prompt_view(folder, record, f"prompt-{number}", budget, str(adapters.get(record.name, "")))
        for number, (folder, record) in enumerate(records, start=1)
    ]
    extractors = dict.fromkeys(name for view in views for name in view.fid_changes)
    html = environment().from_string(resource("report.html.jinja")).render(
        title=title,
        style=Markup(resource("report.css")),  # noqa: S704 (our own file)
        tally=_tally(records),
        job=[(str(name).replace("_", " ").capitalize(), value) for name, value in facts.items()],
        extractors=list(extractors),
        views=views,
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, html)


def _tally(records: Sequence[tuple[Path, CorrectionRecord]]) -> list[tuple[str, str]]:
    counts: Counter[str] = Counter(record.status for _, record in records)
    return [
        (status, f"{counts[status]} of {len(records)} {words}")
        for status, words in _WORDS.items()
        if counts[status]
    ]


def environment() -> Environment:
    """Templates in which whatever comes from records is escaped."""
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def resource(name: str) -> str:
    """The text of one of this package's own files."""
    return (files("corrector.report") / name).read_text(encoding="utf-8")
