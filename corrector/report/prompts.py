"""What the page shows of one prompt: its record turned into words, images and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrector.evaluation.comparison import GuardSamples
from corrector.evaluation.figures import Figure, change_text
from corrector.evaluation.scorecard import Check
from corrector.record.correction import CorrectionRecord
from corrector.report.images import InlineImage, inline_image
from corrector.report.plots import IntervalRow, LossPlot, interval_rows, loss_plot


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
    """One prompt on the page; the template reads the rest from its record.

    Attributes:
        missed, passed: Checks of the gate.
        figures: Of the scorecard.
        headlines: What the correction changed, by the name of the headline figure.
        groups: Pairs of the prompt and its paraphrases; `hidden` says how many are left out.
        lineage_parts: Parts of the lineage that are tables of their own, with their titles.
    """

    anchor: str
    record: CorrectionRecord
    subtitle: str
    verdict: str
    missed: tuple[Check, ...]
    passed: tuple[Check, ...]
    figures: list[Figure]
    headlines: dict[str, str]
    intervals: list[IntervalRow]
    loss: LossPlot | None
    groups: tuple[PairGroup, ...]
    hidden: str
    guards: tuple[PairGroup, ...]
    negatives: tuple[PairGroup, ...]
    exemplars: tuple[InlineImage, ...]
    held_out: tuple[InlineImage, ...]
    lineage: list[tuple[str, str]]
    lineage_parts: list[tuple[str, list[tuple[str, str]]]]

    @property
    def thumbnails(self) -> Pair | None:
        """The pair of the overview."""
        return self.groups[0].pairs[0] if self.groups else None

    @property
    def large(self) -> bool:
        """Whether its samples are photographs rather than a few pixels."""
        return any(not pair.before.pixelated for group in self.groups for pair in group.pairs)

    @property
    def short_reason(self) -> str:
        """Why it is not corrected, for the overview."""
        if self.missed:
            return "Not met: " + "; ".join(check.name for check in self.missed)
        error = self.record.error or ""
        return error if len(error) <= 120 else error[:119] + "…"

    @property
    def worst_guard(self) -> str:
        """How many images of the guard prompt that suffered most are recognised."""
        guards = self.record.scorecard.guards if self.record.scorecard else ()
        worst = max(guards, key=lambda guard: guard.drop, default=None)
        return worst.figure({}).arms_text if worst else "–"

    @property
    def false_route(self) -> str:
        """How many images of hard negatives are recognised."""
        harm = self.record.scorecard.false_route if self.record.scorecard else None
        return next(harm.figures()).arms_text if harm else "–"

    @property
    def false_route_summary(self) -> str:
        """The same with its interval, as a sentence; empty where it was not measured."""
        harm = self.record.scorecard.false_route if self.record.scorecard else None
        if harm is None:
            return ""
        figure = next(harm.figures())
        return (
            f"Of {harm.n} images over {len(harm.negatives)} prompts {figure.base_text} are recognised as their "
            f"prompt's before and {figure.corrected_text} after: {figure.change_text}."
        )

    @property
    def seconds(self) -> str:
        """How long each stage took."""
        return ", ".join(f"{stage} {duration(value)}" for stage, value in self.record.seconds.items())

    @property
    def duration(self) -> str:
        """How long it took in all."""
        return duration(sum(self.record.seconds.values())) if self.record.seconds else "–"

    @property
    def entry(self) -> str:
        """Its entry in the batch file."""
        return json.dumps(self.record.entry, indent=2, ensure_ascii=False, default=str)


def prompt_view(
    folder: Path, record: CorrectionRecord, anchor: str, budget: Budget, adapter: str
) -> PromptView:
    """Everything the page shows of the record in `folder`.

    Args:
        adapter: How the registry knows its adapter ("NAME version 3, candidate"), or an empty string.
    """
    images, card = CorrectionRecord.images(folder), record.scorecard
    checks = card.verdict.reasons if card else ()
    missed = tuple(check for check in checks if not check.passed)
    figures = card.figures() if card else []
    changes = {figure.name: figure.change for figure in figures if figure.headline and figure.change}
    most = card.thresholds.max_fid_difference if card else 0.0
    groups = _groups(record, images.before, images.after, budget)
    shown, total = sum(len(group.pairs) for group in groups), len(images.before)
    guards = {guard.prompt: (guard.note, guard.passed) for guard in card.guards} if card else {}
    negatives = card.false_route.negatives if card and card.false_route else ()
    lineage, parts = _lineage(record)
    longest = min(budget.longest, 256)
    finished = f"finished {record.created:%Y-%m-%d %H:%M} UTC"
    return PromptView(
        anchor=anchor,
        record=record,
        subtitle=" · ".join(part for part in (record.name, adapter, finished) if part),
        verdict=_verdict(record, len(missed), len(checks)),
        missed=missed,
        passed=tuple(check for check in checks if check.passed),
        figures=figures,
        headlines={name: change_text(change) for name, change in changes.items()},
        intervals=interval_rows([(name, change, change.high < most) for name, change in changes.items()]),
        loss=loss_plot(record.curve),
        groups=groups,
        hidden=f"{shown} of {total} pairs; all are in the record's folder" if shown < total else "",
        guards=_neighbours(record.guards, images.guards, guards, budget),
        negatives=_neighbours(
            record.hard_negatives,
            images.negatives,
            {each.prompt: (each.note, True) for each in negatives},
            budget,
        ),
        exemplars=tuple(inline_image(path, longest) for path in images.exemplars[: budget.exemplars]),
        held_out=tuple(inline_image(path, longest) for path in images.held_out[: budget.exemplars]),
        lineage=lineage,
        lineage_parts=parts,
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


def _groups(
    record: CorrectionRecord, before: Sequence[Path], after: Sequence[Path], budget: Budget
) -> tuple[PairGroup, ...]:
    by_prompt: dict[str, list[Pair]] = {}
    for index, (one, other) in enumerate(list(zip(before, after, strict=False))[: budget.pairs]):
        prompt = record.sampled_prompts[index] if index < len(record.sampled_prompts) else record.prompt
        seed = record.seeds[index] if index < len(record.seeds) else None
        by_prompt.setdefault(prompt, []).append(_pair(one, other, prompt, seed, budget))
    return tuple(PairGroup(prompt, tuple(pairs)) for prompt, pairs in by_prompt.items())


def _neighbours(
    samples: Sequence[GuardSamples],
    files: Sequence[tuple[Sequence[Path], Sequence[Path]]],
    notes: Mapping[str, tuple[str, bool]],
    budget: Budget,
) -> tuple[PairGroup, ...]:
    """The pairs of guard prompts or hard negatives, with what the scorecard says of each and whether the gate accepts it."""
    groups = []
    for neighbour, arms in zip(samples, files, strict=False):
        rows = list(zip(*arms, neighbour.seeds, strict=False))[: budget.guard_pairs]
        pairs = tuple(_pair(one, other, neighbour.prompt, seed, budget) for one, other, seed in rows)
        groups.append(PairGroup(neighbour.prompt, pairs, *notes.get(neighbour.prompt, ("", True))))
    return tuple(groups)


def _pair(before: Path, after: Path, prompt: str, seed: int | None, budget: Budget) -> Pair:
    caption = f"seed {seed}" if seed is not None else before.stem
    one, other = inline_image(before, budget.longest), inline_image(after, budget.longest)
    return Pair(one, other, caption, f"{prompt}, {caption}")


def _lineage(
    record: CorrectionRecord,
) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, str]]]]]:
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
    return pairs, parts


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
