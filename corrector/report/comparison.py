"""A page that compares two versions of adapters: the figures of their records, and their images."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corrector.errors import UserError
from corrector.record.correction_record import CorrectionRecord
from corrector.report.page import write_page
from corrector.report.provenance import sources_text


@dataclass(frozen=True)
class ComparedVersion:
    """One version of a comparison.

    Attributes:
        title: The version's name for people.
        record: Record of the correction that made it.
        facts: Name -> text of further facts, such as its aliases.
        sheet: Its samples before and after, as PNG, or None.
    """

    title: str
    record: CorrectionRecord
    facts: Mapping[str, str] = field(default_factory=dict)
    sheet: bytes | None = None


@dataclass(frozen=True)
class Row:
    """One figure or fact of both versions, as text."""

    what: str
    one: str
    other: str

    @property
    def differs(self) -> bool:
        """Whether the two texts differ."""
        return self.one != self.other


def compare_records(one: ComparedVersion, other: ComparedVersion) -> tuple[Row, ...]:
    """The facts and figures of both versions, in the order of the page; a missing figure is an empty text."""
    left, right = _facts(one), _facts(other)
    return tuple(
        Row(what, left.get(what, ""), right.get(what, "")) for what in dict.fromkeys([*left, *right])
    )


def write_comparison(one: ComparedVersion, other: ComparedVersion, path: Path) -> Path:
    """Write the comparison as one HTML file without scripts or references to anything outside; returns `path`.

    Text of users is escaped.

    Raises:
        UserError: `path` cannot be written.
    """
    sheets = [
        (each.title, base64.b64encode(each.sheet).decode() if each.sheet else None) for each in (one, other)
    ]
    try:
        return write_page(path, "comparison.html.jinja", sheets=sheets, rows=compare_records(one, other))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; choose another file") from error


def _facts(version: ComparedVersion) -> dict[str, str]:
    record, card = version.record, version.record.scorecard
    found = {"prompt": record.prompt, **version.facts}
    if card is not None:
        found["gate"] = "passed" if card.verdict.passed else "not passed"
        found["grade"] = card.verdict.grade or ""
        for check in card.verdict.reasons:
            found[f"check: {check.name}"] = "passed" if check.passed else "not passed"
        for figure in card.figures():
            values = "; ".join(text for text in (figure.arms_text, figure.change_text) if text)
            found[figure.name] = f"{values} (n = {figure.n_text})"
    found["base"] = f"{record.base_reference} at {record.base_revision[:12]}"
    if record.exemplars:
        found["exemplars"] = sources_text(record.exemplars)
    return found | {
        str(name): str(value) for name, value in (record.entry.get("hyperparameters") or {}).items()
    }
