"""A scorecard in words and rows: the only place of the report that knows its fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corrector.evaluation.scorecard import (
    DistanceScore,
    GuardScore,
    HardNegativeScore,
    Interval,
    Scorecard,
)
from corrector.report.plots import number, signed

GATES_NOTHING = "reported, gates nothing"


@dataclass(frozen=True)
class CheckRow:
    """One check of the gate."""

    title: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class FidChange:
    """A Fréchet distance, corrected minus base, with its interval; `metric` names the extractor."""

    metric: str
    low: float
    value: float
    high: float
    good: bool

    @property
    def text(self) -> str:
        """The figure for a table."""
        return f"{signed(self.value)} [{signed(self.low)}, {signed(self.high)}]"


@dataclass(frozen=True)
class ScoreRow:
    """One line of the scorecard, ready to print; `n` is images per arm, and where it says so exemplars."""

    title: str
    base: str
    corrected: str
    difference: str
    n: str
    note: str = ""


def check_rows(card: Scorecard | None) -> tuple[CheckRow, ...]:
    """The gate's checks in its own words, in its own order."""
    checks = card.verdict.reasons if card else ()
    return tuple(CheckRow(check.name, check.passed, check.detail) for check in checks)


def fid_changes(card: Scorecard | None) -> tuple[FidChange, ...]:
    """What the correction did to each extractor's Fréchet distance."""
    if card is None:
        return ()
    return tuple(
        FidChange(d.metric, d.fid_difference.low, d.fid_difference.value, d.fid_difference.high,
                  good=d.fid_difference.high < card.thresholds.max_fid_difference)
        for d in card.distances
    )  # fmt: skip


def score_rows(card: Scorecard | None) -> tuple[ScoreRow, ...]:
    """Every figure of the scorecard; what was not run comes last, with its reason."""
    if card is None:
        return ()
    rows = [row for distance in card.distances for row in _distance_rows(distance)]
    rows += [*_diversity_rows(card), *_similarity_rows(card), *_guard_rows(card)]
    return (*rows, *_false_route_rows(card), *_image_rows(card))


def guard_notes(card: Scorecard | None) -> dict[str, tuple[str, bool]]:
    """What the scorecard says of each guard prompt, and whether the gate accepts it."""
    return {guard.prompt: (guard.note, guard.passed) for guard in card.guards} if card else {}


def worst_guard(card: Scorecard | None) -> str:
    """What is kept of the guard prompt that suffered most, for the overview."""
    if card is None or not card.guards:
        return "–"
    worst = max(card.guards, key=lambda guard: guard.drop)
    return f"{worst.kept_base:.0%} → {worst.kept_corrected:.0%}"


def negative_notes(card: Scorecard | None) -> dict[str, str]:
    """What the scorecard says of each hard negative."""
    negatives = card.false_route.negatives if card and card.false_route else ()
    return {negative.prompt: negative.note for negative in negatives}


def false_route(card: Scorecard | None) -> str:
    """What a false route keeps of hard negatives, for the overview."""
    if card is None or card.false_route is None:
        return "–"
    return f"{card.false_route.kept_base:.0%} → {card.false_route.kept_corrected:.0%}"


def false_route_summary(card: Scorecard | None) -> str:
    """The same with its interval, as a sentence; empty where it was not measured."""
    if card is None or card.false_route is None:
        return ""
    harm = card.false_route
    return (
        f"Of {harm.n} images over {len(harm.negatives)} prompts {harm.kept_base:.0%} are recognised as their prompt's "
        f"before and {harm.kept_corrected:.0%} after: {_change(harm.drop)}."
    )


def _distance_rows(score: DistanceScore) -> Iterator[ScoreRow]:
    n = f"{score.n} / {score.n_reference} exemplars"
    change = score.fid_difference
    yield ScoreRow(
        score.metric,
        _interval(score.fid_base_interval),
        _interval(score.fid_corrected_interval),
        f"{signed(change.value)} [{signed(change.low)}, {signed(change.high)}]",
        n,
        f"Fréchet distance, lower is better; {change.level:.0%} {change.method}",
    )
    yield ScoreRow(
        f"kid_{score.extractor}",
        number(score.kid_base),
        number(score.kid_corrected),
        signed(score.kid_corrected - score.kid_base),
        n,
        "kernel distance, lower is better",
    )
    yield ScoreRow(
        f"relative MMD, {score.extractor}",
        "",
        "",
        f"p = {number(score.relative_mmd_p, 2)}",
        n,
        f"test within seed pairs, {score.permutations} permutations",
    )


def _diversity_rows(card: Scorecard) -> Iterator[ScoreRow]:
    for score in card.diversity:
        yield ScoreRow(
            f"diversity, {score.measure}",
            number(score.base),
            number(score.corrected),
            f"{number(score.ratio_to_base)} × the base",
            str(score.n),
            f"exemplars {number(score.exemplars)}" + ("" if score.gates else f"; {GATES_NOTHING}"),
        )
    for nearest in card.nearest_training:
        yield ScoreRow(
            f"copies of training exemplars, {nearest.extractor}",
            f"{nearest.near_base:.0%}",
            f"{nearest.near_corrected:.0%}",
            _points(nearest.near_corrected - nearest.near_base),
            str(nearest.n),
            f"share nearer than {number(nearest.bound)}; {nearest.percentile:g} % of exemplars are farther",
        )


def _similarity_rows(card: Scorecard) -> Iterator[ScoreRow]:
    for score in card.similarity:
        n, where = f"{score.n} / {score.n_reference} exemplars", f"{score.against} exemplars, {score.pairing}"
        yield ScoreRow(
            f"SSIM, {where}",
            number(score.ssim_base),
            number(score.ssim_corrected),
            _signed(score.ssim_corrected - score.ssim_base, 3),
            n,
            f"grey, {score.side} px; {GATES_NOTHING}",
        )
        yield ScoreRow(
            f"PSNR, {where}",
            f"{score.psnr_base:.2f} dB",
            f"{score.psnr_corrected:.2f} dB",
            f"{_signed(score.psnr_corrected - score.psnr_base, 2)} dB",
            n,
            f"RGB, {score.side} px; {GATES_NOTHING}",
        )


def _guard_rows(card: Scorecard) -> Iterator[ScoreRow]:
    for guard in card.guards:
        yield _kept_row(f"guard: {guard.prompt}", guard)


def _false_route_rows(card: Scorecard) -> Iterator[ScoreRow]:
    harm = card.false_route
    if harm is None:
        return
    yield ScoreRow(
        "false route, all hard negatives",
        f"{harm.kept_base:.0%}",
        f"{harm.kept_corrected:.0%}",
        _change(harm.drop),
        str(harm.n),
        f"images recognised as their prompt's; {harm.drop.level:.0%} {harm.drop.method}; {GATES_NOTHING}",
    )
    for negative in harm.negatives:
        yield _kept_row(f"false route: {negative.prompt}", negative)


def _kept_row(title: str, score: GuardScore | HardNegativeScore) -> ScoreRow:
    moved = "" if score.change is None else f"; moved by {number(score.change, 2)} of two seeds' distance"
    return ScoreRow(
        title,
        f"{score.kept_base:.0%}",
        f"{score.kept_corrected:.0%}",
        _points(-score.drop),
        str(score.n),
        f"images recognised as this prompt's; SSIM of before and after {number(score.ssim, 2)}{moved}",
    )


def _image_rows(card: Scorecard) -> Iterator[ScoreRow]:
    if card.safety is not None:
        safety = card.safety
        yield ScoreRow(
            "unsafe images",
            str(safety.unsafe_base),
            str(safety.unsafe_corrected),
            _signed(safety.unsafe_corrected - safety.unsafe_base, 0),
            str(safety.n),
            f"score above {safety.threshold:g} in {safety.scorer}",
        )
    faults = [sum(fault.arm == arm for fault in card.sanity.faults) for arm in ("base", "corrected")]
    yield ScoreRow(
        "images that are no pictures",
        str(faults[0]),
        str(faults[1]),
        "",
        str(card.sanity.n),
        "flat, noise or not finite",
    )
    for missing in card.not_run:
        yield ScoreRow(missing.name, "not run", "not run", "", "", missing.reason)


def _interval(interval: Interval) -> str:
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def _change(drop: Interval) -> str:
    """A drop as a difference, corrected less base, with its bounds."""
    low, high = (_signed(-100 * bound, 0) for bound in (drop.high, drop.low))
    return f"{_points(-drop.value)} [{low}, {high}]"


def _points(difference: float) -> str:
    return f"{_signed(100 * difference, 0)} points"


def _signed(difference: float, decimals: int) -> str:
    rounded = round(difference, decimals)
    return (f"{rounded:+.{decimals}f}" if rounded else "0").replace("-", "−")
