"""Prepares the images, figures, plots and texts of one prompt's record for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrector.cost import device_seconds, dollars, flops_text
from corrector.errors import UserError
from corrector.evaluation.comparison import GuardSamples
from corrector.evaluation.scorecard_parts import GuardScore, HardNegativeScore
from corrector.preference.attached import ATTACHED_FILE, AttachedSurvey
from corrector.record.correction_record import CorrectionRecord
from corrector.report.images import InlineImage, inline_image
from corrector.report.plots import interval_rows, loss_plot
from corrector.report.provenance import source_rows, sources_text
from corrector.report.survey_texts import survey_texts
from corrector.report.verdict_texts import (
    NOT_JUDGED,
    grade_text,
    guards_not_drawn,
    imported_text,
    looks_text,
    negatives_not_drawn,
)
from corrector.settings import Settings


@dataclass(frozen=True)
class Budget:
    """How many images a page shows for one prompt, and their size. It bounds the size of a page of many prompts.

    Attributes:
        pairs: Before/after pairs of the prompt itself.
        guard_pairs: Pairs per guard prompt, and per hard negative.
        exemplars: Exemplars of each kind, training and held-out.
        longest: Most pixels of an image's longer side.
    """

    pairs: int
    guard_pairs: int
    exemplars: int
    longest: int

    @classmethod
    def of(cls, prompts: int) -> Budget:
        """The budget for a page of so many prompts: more prompts have fewer and smaller images."""
        if prompts <= 6:
            return cls(32, 8, 24, 512)
        if prompts <= 30:
            return cls(16, 4, 8, 384)
        return cls(6, 2, 4, 256)


@dataclass(frozen=True)
class Pair:
    """Two samples of the same prompt and seed."""

    before: InlineImage
    after: InlineImage
    caption: str
    alt: str


@dataclass(frozen=True)
class PairGroup:
    """The pairs of one prompt; a guard prompt or hard negative also has the scorecard's note and verdict."""

    prompt: str
    pairs: list[Pair]
    note: str = ""
    passed: bool = True


def prompt_view(
    folder: Path, record: CorrectionRecord, anchor: str, budget: Budget, adapter: str
) -> dict[str, Any]:
    """The template's variables for the record in `folder`: pairs of images, figures, plots and texts.

    Args:
        adapter: The adapter's name in the registry ("NAME version 3, candidate"), or an empty string.
    """
    images, card = CorrectionRecord.images(folder), record.scorecard
    groups = _groups(record, images.before, images.after, budget)
    shown, total = sum(len(group.pairs) for group in groups), len(images.before)
    small = min(budget.longest, 256)
    finished = f"finished {record.created:%Y-%m-%d %H:%M} UTC"
    origin = imported_text(record)
    return {
        "anchor": anchor,
        "record": record,
        "subtitle": " · ".join(part for part in (record.name, origin, adapter, finished) if part),
        "loss": loss_plot(record.curve),
        "groups": groups,
        "thumbnails": groups[0].pairs[0] if groups else None,
        "large": any(not pair.before.pixelated for group in groups for pair in group.pairs),
        "hidden": f"{shown} of {total} pairs; all are in the record's folder" if shown < total else "",
        "exemplars": [inline_image(path, small) for path in images.exemplars[: budget.exemplars]],
        "held_out": [inline_image(path, small) for path in images.held_out[: budget.exemplars]],
        "guards": _neighbours(record.guards, images.guards, card.guards if card else (), budget),
        "negatives": _neighbours(
            record.hard_negatives,
            images.negatives,
            card.false_route.negatives if card and card.false_route else (),
            budget,
        ),
        "seconds": ", ".join(f"{stage} {duration(value)}" for stage, value in record.seconds.items()),
        "duration": duration(sum(record.seconds.values())) if record.seconds else "–",
        "cost": cost_text(record, Settings.from_environment().device_hour_dollars),
        "sources_text": sources_text(record.exemplars),
        "sources": source_rows(record.exemplars),
        "survey": _survey(folder, record),
        "entry": json.dumps(record.entry, indent=2, ensure_ascii=False, default=str),
        **_lineage(record),
        **_verdict(record),
        **_figures(record),
    }


def _figures(record: CorrectionRecord) -> dict[str, Any]:
    """The figures of the scorecard, the changes of headline figures by name, and the texts of the overview."""
    card, no_guards, no_negatives = record.scorecard, guards_not_drawn(record), negatives_not_drawn(record)
    view: dict[str, Any] = {
        "figures": [],
        "headlines": {},
        "intervals": [],
        "worst_guard": "not drawn" if no_guards else "–",
        "guards_not_drawn": no_guards,
        "false_route": "not drawn" if no_negatives else "–",
        "negatives_not_drawn": no_negatives,
        "false_route_summary": "",
    }
    if card is None:
        return view
    view["figures"] = card.figures()
    headlines = [each for each in view["figures"] if each.headline]
    view["headlines"] = {each.name: each.change_text for each in headlines}
    view["intervals"] = interval_rows(
        [(each.name, each.change) for each in headlines if each.change],
        most=card.thresholds.max_fid_difference,
    )
    if card.guards:
        worst = max(card.guards, key=lambda guard: guard.lost)
        view["worst_guard"] = f"{worst.lost} of {worst.n}"
    if (harm := card.false_route) is not None:
        figure = next(harm.figures())
        view["false_route"] = figure.arms_text
        view["false_route_summary"] = (
            f"Of {harm.n} images over {len(harm.negatives)} prompts {figure.base_text} are recognised as their "
            f"prompt's before and {figure.corrected_text} after: {figure.change_text}."
        )
    return view


def _verdict(record: CorrectionRecord) -> dict[str, Any]:
    """The gate's checks and what it cannot know, and the verdict in a long and a short form."""
    card = record.scorecard
    checks = card.verdict.reasons if card else ()
    missed = [check for check in checks if not check.passed]
    verdict, outcome = f"Not approved: {len(missed)} of {len(checks)} checks did not pass.", ""
    error = record.error or ""
    reason = error if len(error) <= 120 else error[:119] + "…"
    if record.status == "failed":
        verdict = "Could not be corrected."
    elif card is None:
        verdict, reason = NOT_JUDGED, "imported without exemplars"
    elif grade := grade_text(card):
        verdict, reason = grade[0].upper() + grade[1:] + ".", grade
        outcome = f"All {len(checks)} checks passed. The adapter is a candidate: it waits for a reviewer."
    if missed:
        reason = "Not met: " + "; ".join(check.name for check in missed)
    return {
        "missed": missed,
        "passed": [check for check in checks if check.passed],
        "verdict": verdict,
        "outcome": outcome,
        "looks": looks_text(card) if card else "",
        "unknown": card.verdict.unknown if card else (),
        "short_reason": reason,
    }


def _survey(folder: Path, record: CorrectionRecord) -> list[tuple[str, str]]:
    """What people and a judge prefer, where the record's folder has a survey."""
    if not (folder / ATTACHED_FILE).is_file():
        return []
    try:
        return survey_texts(AttachedSurvey.load(folder / ATTACHED_FILE, record.adapter_sha256))
    except UserError as error:
        return [("survey", str(error))]


def cost_text(record: CorrectionRecord, price: float | None) -> str:
    """The FLOPs, the device's seconds, and the dollars at `price` an hour; empty where the FLOPs are not known."""
    if (cost := record.cost) is None:
        return ""
    drawing = cost.own + cost.guards + cost.negatives + cost.decode
    parts = [
        f"cost: {flops_text(cost.train)} training",
        f"{flops_text(drawing)} drawing {cost.images} images",
        f"{flops_text(cost.predictions)} comparing predictions" if cost.predictions else "",
        f"{flops_text(cost.encode + cost.score)} encoding and scoring",
    ]
    seconds = device_seconds(record.seconds)
    spent = "" if price is None else f"; ${dollars(seconds, price):,.2f}"
    return f"{', '.join(filter(None, parts))}; {duration(seconds)} of a device{spent}"


def duration(seconds: float) -> str:
    """A time span for reading: "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _groups(
    record: CorrectionRecord, before: Sequence[Path], after: Sequence[Path], budget: Budget
) -> list[PairGroup]:
    by_prompt: dict[str, list[Pair]] = {}
    for index, (one, other) in enumerate(list(zip(before, after, strict=False))[: budget.pairs]):
        prompt = record.sampled_prompts[index] if index < len(record.sampled_prompts) else record.prompt
        seed = record.seeds[index] if index < len(record.seeds) else None
        by_prompt.setdefault(prompt, []).append(_pair(one, other, prompt, seed, budget))
    return [PairGroup(prompt, pairs) for prompt, pairs in by_prompt.items()]


def _neighbours(
    samples: Sequence[GuardSamples],
    files: Sequence[tuple[Sequence[Path], Sequence[Path]]],
    scores: Sequence[GuardScore | HardNegativeScore],
    budget: Budget,
) -> list[PairGroup]:
    """The pairs of guard prompts or hard negatives, with the scorecard's note and verdict."""
    scored = {score.prompt: score for score in scores}
    groups = []
    for neighbour, arms in zip(samples, files, strict=False):
        rows = list(zip(*arms, neighbour.seeds, strict=False))[: budget.guard_pairs]
        pairs = [_pair(one, other, neighbour.prompt, seed, budget) for one, other, seed in rows]
        score = scored.get(neighbour.prompt)
        passed = score.passed if isinstance(score, GuardScore) else True
        groups.append(PairGroup(neighbour.prompt, pairs, score.note if score else "", passed))
    return groups


def _pair(before: Path, after: Path, prompt: str, seed: int | None, budget: Budget) -> Pair:
    caption = f"seed {seed}" if seed is not None else before.stem
    one, other = inline_image(before, budget.longest), inline_image(after, budget.longest)
    return Pair(one, other, caption, f"{prompt}, {caption}")


def _lineage(record: CorrectionRecord) -> dict[str, Any]:
    """Name -> value of the lineage, and further tables by title."""
    pairs = [
        ("Base", f"{record.base_name} ({record.base_reference})"),
        ("Base revision", record.base_revision),
        ("Adapter SHA-256", record.adapter_sha256 or "–"),
        ("Work id", record.work_id),
        ("Created", record.created.isoformat()),
    ]
    parts = []
    for name, value in record.lineage.items():
        if isinstance(value, Mapping):
            parts.append((_title(name), [(str(key), _text(item)) for key, item in value.items()]))
        else:
            pairs.append((_title(name), _text(value)))
    return {"lineage": pairs, "lineage_parts": parts}


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
