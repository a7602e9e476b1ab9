"""The report of a run: one self-contained HTML file about its prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from corrector.files import write_atomically
from corrector.record.correction_record import CorrectionRecord
from corrector.report.prompts import Budget, prompt_view

_WORDS = {
    "corrected": "corrected",
    "rejected": "rejected by the gate",
    "failed": "failed",
    "not judged": "not judged",
}


def write_report(
    records: Sequence[tuple[Path, CorrectionRecord]], path: Path, *, title: str, job: Mapping[str, Any]
) -> Path:
    """Write the report of a run as one HTML file without scripts or references to anything outside.

    Texts from records are escaped. Small images are embedded without loss, large ones are reduced to 512 pixels or
    less. A run of many prompts shows a part of each prompt's images.

    Args:
        records: Record folders with their records, in the order of the page.
        path: Written whole or not at all.
        job: Name -> value of facts about the run for the top of the page, in order. The key "adapters" is not
            shown there: it maps a prompt's name to its adapter's name in the registry.

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
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_page(
        path,
        "report.html.jinja",
        title=title,
        tally=_tally(records),
        job=[(str(name).replace("_", " ").capitalize(), value) for name, value in facts.items()],
        headlines=list(dict.fromkeys(name for view in views for name in view["headlines"])),
        views=views,
    )


def _tally(records: Sequence[tuple[Path, CorrectionRecord]]) -> list[tuple[str, str]]:
    counts: Counter[str] = Counter(record.status for _, record in records)
    return [
        (status, f"{counts[status]} of {len(records)} {words}")
        for status, words in _WORDS.items()
        if counts[status]
    ]


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Write a page from one of this package's templates, whole or not at all; text of users is escaped.

    Returns:
        `path`.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    folder = files("corrector.report")
    html = page.from_string((folder / template).read_text(encoding="utf-8")).render(
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        **values,
    )
    return write_atomically(path, html)
