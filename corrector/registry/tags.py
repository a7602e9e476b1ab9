"""A record as MLflow's tags and description, cut to MLflow's limits. The artifact `record.json` is the complete record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from corrector.evaluation.scorecard import Scorecard
from corrector.evaluation.scorecard_figures import plain
from corrector.exemplars.provenance import ExemplarSource, dollars
from corrector.record.correction_record import CorrectionRecord
from corrector.report.model_card import escape, verdict_text
from corrector.report.verdict_texts import imported_text

TAG_LENGTH = 5000
"""Characters: what MLflow's tables keep of the value of a registered model's tag."""

COMPLETE = "registration"
"""Tag that is set last on a version; a version without it must not be used."""
WORK_ID = "work_id"
STATUS = "status"
SHA256 = "adapter_sha256"
SCORES = "scores"
GRADE = "grade"
"""Tag of what has passed the gate: improved, or fixed."""
DECISION = "review.decision"
"""The last review's decision about a version."""

_FILTERED = ("rank", "learning_rate", "steps", "preservation")
_ENDING = " […]"


def record_tags(record: CorrectionRecord) -> dict[str, str]:
    """Tags of a run and of its version: identity, verdict, headline scores, hyper-parameters, lineage."""
    tags: dict[str, Any] = {
        WORK_ID: record.work_id,
        STATUS: record.status,
        SHA256: record.adapter_sha256,
        "recorded": record.created.isoformat(),
        "prompt": record.prompt,
        "owner": record.entry.get("owner"),
        "base": record.base_reference,
        "base_name": record.base_name,
        "base_revision": record.base_revision,
        "error": record.error,
    }
    if record.scorecard is not None:
        tags["gate"] = "passed" if record.scorecard.verdict.passed else "not passed"
        tags[GRADE] = record.scorecard.verdict.grade
        tags[SCORES] = headline(record.scorecard)
    chosen = record.entry.get("hyperparameters") or {}
    tags |= {name: chosen[name] for name in _FILTERED if name in chosen}
    tags |= _exemplar_tags(record.exemplars)
    tags["imported"] = imported_text(record)
    tags |= {f"lineage.{safe_key(name)}": value for name, value in record.lineage.items()}
    return {name: cut(_text(value)) for name, value in tags.items() if value not in (None, "")}


def _exemplar_tags(sources: Sequence[ExemplarSource]) -> dict[str, Any]:
    """Numbers, sources, models and cost of the exemplars, and who decided about them; none for older records."""
    if not sources:
        return {}
    used = sum(each.is_used for each in sources)
    generations = [each.generation for each in sources if each.generation]
    return {
        "exemplars": used,
        "exemplars_dropped": len(sources) - used,
        "exemplar_sources": _listed("generated" if each.generation else each.kind for each in sources),
        "exemplar_models": _listed(each.model for each in generations),
        "exemplar_dollars": round(dollars(sources), 4),
        "exemplars_decided_by": _listed(each.decision.by for each in sources if each.decision),
    }


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(texts)))


def headline(card: Scorecard) -> dict[str, dict[str, float]]:
    """The headline figures by name: n, base, corrected, and the change with its interval, rounded."""
    found: dict[str, dict[str, float]] = {}
    for figure in card.figures():
        if figure.headline and figure.base is not None and figure.corrected is not None and figure.change:
            change = figure.change
            values = {
                "base": plain(figure.base),
                "corrected": plain(figure.corrected),
                "change": change.value,
            }
            values |= {"low": change.low, "high": change.high}
            found[figure.name] = {"n": figure.n, **{key: round(value, 3) for key, value in values.items()}}
    return found


def describe(record: CorrectionRecord) -> str:
    """The verdict in Markdown, as MLflow's pages show it; text of users is escaped."""
    lines = [f"**{record.status}**: {escape(record.prompt)}", ""]
    if record.error:
        lines += [escape(record.error), ""]
    return cut("\n".join([*lines, verdict_text(record)]).strip())


def safe_key(name: Any) -> str:
    """`name` in a form that MLflow accepts as the key of a parameter, metric or tag."""
    return re.sub(r"[^\w\- ]", "_", str(name), flags=re.ASCII).strip() or "_"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def cut(text: str, length: int = TAG_LENGTH) -> str:
    """`text`, cut to `length` characters with a mark at the end if it is longer."""
    return text if len(text) <= length else text[: length - len(_ENDING)] + _ENDING
