"""What the page shows of one prompt: its record turned into words, images and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrector.evaluation.comparison import GuardSamples
from corrector.record.correction import CorrectionRecord
from corrector.report.images import InlineImage, inline_image
from corrector.report.plots import IntervalPlot, LossPlot, interval_plot, loss_plot
from corrector.report.scores import (
    CheckRow,
    ScoreRow,
    check_rows,
    false_route,
    false_route_summary,
    fid_changes,
    guard_notes,
    negative_notes,
    score_rows,
    worst_guard,
)


@dataclass(frozen=True)
class Budget:
    """How many images a page affords for one prompt, and how large: a page of many prompts must still open.

    Attributes:
        pairs: Before/after pairs of the prompt itself.
        guard_pairs: Pairs per guard prompt, and per hard negative.
        exemplars: Of each kind.
        longest: Pixels a side.
    """

    pairs: int
    guard_pairs: int
    exemplars: int
    longest: int

    @classmethod
    def of(cls, prompts: int) -> Budget:
        """Everything for up to 6 prompts, a sample beyond."""
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
    """The pairs of one wording; for a guard prompt or hard negative with what the scorecard says of it."""

    prompt: str
    pairs: tuple[Pair, ...]
    note: str = ""
    passed: bool = True


@dataclass(frozen=True)
class PromptView:
    """One prompt on the page."""

    anchor: str
    prompt: str
    status: str
    subtitle: str
    verdict: str
    error: str | None
    missed: tuple[CheckRow, ...]
    passed: tuple[CheckRow, ...]
    short_reason: str
    intervals: IntervalPlot | None
    fid_changes: Mapping[str, str]
    worst_guard: str
    false_route: str
    thumbnails: Pair | None
    groups: tuple[PairGroup, ...]
    hidden: str
    guards: tuple[PairGroup, ...]
    negatives: tuple[PairGroup, ...]
    false_route_summary: str
    exemplars: tuple[InlineImage, ...]
    held_out: tuple[InlineImage, ...]
    scores: tuple[ScoreRow, ...]
    loss: LossPlot | None
    seconds: str
    duration: str
    lineage: tuple[tuple[str, str], ...]
    lineage_parts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    entry: str

    @property
    def large(self) -> bool:
        """Whether its samples are photographs rather than a few pixels."""
        return any(not pair.before.pixelated for group in self.groups for pair in group.pairs)


def prompt_view(
    folder: Path, record: CorrectionRecord, anchor: str, budget: Budget, adapter: str
) -> PromptView:
    """Everything the page shows of the record in `folder`.

    Args:
        adapter: How the registry knows its adapter ("NAME version 3, candidate"), or an empty string.
    """
    images = CorrectionRecord.images(folder)
    checks = check_rows(record.scorecard)
    missed = tuple(check for check in checks if not check.passed)
    groups = _groups(record, images.before, images.after, budget)
    total = len(images.before)
    shown = sum(len(group.pairs) for group in groups)
    changes = fid_changes(record.scorecard)
    lineage, parts = _lineage(record)
    return PromptView(
        anchor=anchor,
        prompt=record.prompt,
        status=record.status,
        subtitle=" · ".join(
            part for part in (record.name, adapter, f"finished {record.created:%Y-%m-%d %H:%M} UTC") if part
        ),
        verdict=_verdict(record, len(missed), len(checks)),
        error=record.error,
        missed=missed,
        passed=tuple(check for check in checks if check.passed),
        short_reason=_short_reason(record, missed),
        intervals=interval_plot([(c.metric, c.low, c.value, c.high, c.good) for c in changes]),
        fid_changes={change.metric: change.text for change in changes},
        worst_guard=worst_guard(record.scorecard),
        false_route=false_route(record.scorecard),
        thumbnails=groups[0].pairs[0] if groups else None,
        groups=groups,
        hidden=f"{shown} of {total} pairs; all are in the record's folder" if shown < total else "",
        guards=_guards(record, images.guards, budget),
        negatives=_negatives(record, images.negatives, budget),
        false_route_summary=false_route_summary(record.scorecard),
        exemplars=tuple(
            inline_image(path, min(budget.longest, 256)) for path in images.exemplars[: budget.exemplars]
        ),
        held_out=tuple(
            inline_image(path, min(budget.longest, 256)) for path in images.held_out[: budget.exemplars]
        ),
        scores=score_rows(record.scorecard),
        loss=loss_plot(record.curve),
        seconds=", ".join(f"{stage} {duration(value)}" for stage, value in record.seconds.items()),
        duration=duration(sum(record.seconds.values())) if record.seconds else "–",
        lineage=lineage,
        lineage_parts=parts,
        entry=json.dumps(record.entry, indent=2, ensure_ascii=False, default=str),
    )


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


def _verdict(record: CorrectionRecord, missed: int, checks: int) -> str:
    if record.status == "failed":
        return "Could not be corrected."
    if record.status == "corrected":
        return f"All {checks} checks passed. The adapter is a candidate: it waits for a reviewer."
    return f"Not approved: {missed} of {checks} checks did not pass."


def _short_reason(record: CorrectionRecord, missed: Sequence[CheckRow]) -> str:
    if missed:
        return "Not met: " + "; ".join(check.title for check in missed)
    error = record.error or ""
    return error if len(error) <= 120 else error[:119] + "…"


def _groups(
    record: CorrectionRecord, before: Sequence[Path], after: Sequence[Path], budget: Budget
) -> tuple[PairGroup, ...]:
    by_prompt: dict[str, list[Pair]] = {}
    for index, (one, other) in enumerate(list(zip(before, after, strict=False))[: budget.pairs]):
        prompt = record.sampled_prompts[index] if index < len(record.sampled_prompts) else record.prompt
        seed = record.seeds[index] if index < len(record.seeds) else None
        by_prompt.setdefault(prompt, []).append(_pair(one, other, prompt, seed, budget))
    return tuple(PairGroup(prompt, tuple(pairs)) for prompt, pairs in by_prompt.items())


def _guards(
    record: CorrectionRecord, files: Sequence[tuple[Sequence[Path], Sequence[Path]]], budget: Budget
) -> tuple[PairGroup, ...]:
    notes = guard_notes(record.scorecard)
    return tuple(
        PairGroup(guard.prompt, _neighbour_pairs(guard, arms, budget), *notes.get(guard.prompt, ("", True)))
        for guard, arms in zip(record.guards, files, strict=False)
    )


def _negatives(
    record: CorrectionRecord, files: Sequence[tuple[Sequence[Path], Sequence[Path]]], budget: Budget
) -> tuple[PairGroup, ...]:
    notes = negative_notes(record.scorecard)
    return tuple(
        PairGroup(
            negative.prompt, _neighbour_pairs(negative, arms, budget), notes.get(negative.prompt, ""), True
        )
        for negative, arms in zip(record.hard_negatives, files, strict=False)
    )


def _neighbour_pairs(
    samples: GuardSamples, arms: tuple[Sequence[Path], Sequence[Path]], budget: Budget
) -> tuple[Pair, ...]:
    shown = list(zip(*arms, samples.seeds, strict=False))[: budget.guard_pairs]
    return tuple(_pair(one, other, samples.prompt, seed, budget) for one, other, seed in shown)


def _pair(before: Path, after: Path, prompt: str, seed: int | None, budget: Budget) -> Pair:
    caption = f"seed {seed}" if seed is not None else before.stem
    one, other = inline_image(before, budget.longest), inline_image(after, budget.longest)
    return Pair(one, other, caption, f"{prompt}, {caption}")


def _lineage(
    record: CorrectionRecord,
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, tuple[tuple[str, str], ...]], ...]]:
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
            parts.append((_title(name), tuple((str(key), _text(item)) for key, item in value.items())))
        else:
            pairs.append((_title(name), _text(value)))
    return tuple(pairs), tuple(parts)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
