"""Every hyper-parameter of a search as an axis: parallel coordinates of the trials, and how much each one matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from corrector.prompts.search import NUMERIC, Value
from corrector.record.search import TrialResult
from corrector.report.plots import Tick

_GROUPS = 3


@dataclass(frozen=True)
class Axis:
    """One axis of the parallel coordinates: where it stands, its name, and marks along it."""

    x: float
    name: str
    marks: tuple[Tick, ...]


@dataclass(frozen=True)
class Path:
    """One trial's way over all axes, as an SVG polyline's `points`."""

    points: str
    kind: str
    title: str


@dataclass(frozen=True)
class ParallelPlot:
    """Parallel coordinates in a drawing of `width` by `height`; the last axis is the distance."""

    width: int
    height: int
    top: int
    bottom: int
    axes: tuple[Axis, ...]
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Importance:
    """How much of the difference between trials goes with one hyper-parameter, 0 to 1, from `n` trials."""

    name: str
    share: float
    n: int


def parallel_plot(
    trials: Sequence[TrialResult], best: int | None, width: int = 1080, height: int = 250
) -> ParallelPlot | None:
    """Every scored trial over its hyper-parameters; None for fewer than two trials or where nothing is varied."""
    scored = [trial for trial in trials if trial.reports]
    keys = list(scored[0].configuration) if scored else []
    if len(scored) < 2 or not keys:
        return None
    top, bottom, left, right = 28, height - 14, 60, width - 60
    at: dict[str, dict[int, float]] = {}
    axes = []
    for place, name in enumerate([*keys, "distance"]):
        if name == "distance":
            raw: list[Value] = [trial.reports[-1].score.distance for trial in scored]
        else:
            raw = [trial.configuration[name] for trial in scored]
        shares, marks = _scale(name, raw)
        at[name] = {
            trial.index: round(bottom - share * (bottom - top), 1)
            for trial, share in zip(scored, shares, strict=True)
        }
        x = round(left + (right - left) * place / len(keys), 1)
        ticks = tuple(Tick(bottom - share * (bottom - top), label) for share, label in marks)
        axes.append(Axis(x, name.replace("_", " "), ticks))
    paths = [
        Path(
            " ".join(
                f"{axis.x},{at[name][trial.index]}"
                for axis, name in zip(axes, [*keys, "distance"], strict=True)
            ),
            trial_kind(trial, best),
            f"trial {trial.index}",
        )
        for trial in scored
    ]
    paths.sort(key=lambda path: path.kind == "best")  # drawn last, above all others
    return ParallelPlot(width, height, top, bottom, tuple(axes), tuple(paths))


def importances(trials: Sequence[TrialResult]) -> tuple[Importance, ...]:
    """How much each hyper-parameter matters to the distance at the first rung, where all trials were scored alike.

    The share of the variance of the distance's logarithm that lies between groups of similar values (eta squared, adjusted for
    the number of groups, so that it is 0 on average for what does not matter). Shares need not add up: hyper-parameters
    act together. Fewer than six trials tell nothing.
    """
    scored = [trial for trial in trials if trial.reports]
    if len(scored) < 2 * _GROUPS:
        return ()
    outcome = [math.log(max(trial.reports[0].score.distance, 1e-6)) for trial in scored]
    found = [
        Importance(key, _explained([trial.configuration[key] for trial in scored], outcome), len(scored))
        for key in scored[0].configuration
    ]
    return tuple(sorted(found, key=lambda each: -each.share))


def _scale(name: str, values: Sequence[Value]) -> tuple[list[float], list[tuple[float, str]]]:
    """Every value's place, 0 to 1, and what is marked where; numbers by their logarithm, words in a row."""
    numeric = name == "distance" or (name in NUMERIC and all(value is not None for value in values))
    if not numeric:
        words = sorted({str(value) for value in values})
        place = {word: index / max(1, len(words) - 1) for index, word in enumerate(words)}
        return [place[str(value)] for value in values], [(place[word], word) for word in words]
    numbers = [float(str(value)) for value in values]
    scaled = numbers if name == "distance" else [math.log(each) for each in numbers]
    low, high = min(scaled), max(scaled)
    shares = [(each - low) / (high - low) if high > low else 0.5 for each in scaled]
    ends = {min(shares): min(numbers), max(shares): max(numbers)}
    style = ".0%" if name == "distance" else "g"
    return shares, [(share, format(value, style)) for share, value in ends.items()]


def _explained(values: Sequence[Value], outcome: Sequence[float]) -> float:
    groups = list(_grouped(values, outcome).values())
    n, mean = len(outcome), fmean(outcome)
    total = sum((each - mean) ** 2 for each in outcome)
    if len(groups) < 2 or n <= len(groups) or not total:
        return 0.0
    within = sum((each - fmean(group)) ** 2 for group in groups for each in group)
    return max(0.0, 1 - (within / (n - len(groups))) / (total / (n - 1)))


def _grouped(values: Sequence[Value], outcome: Sequence[float]) -> dict[object, list[float]]:
    """Outcomes by value where there are few, by thirds of the order where there are many."""
    few = len(set(values)) <= _GROUPS
    order = sorted(range(len(values)), key=lambda index: _rank(values[index]))
    groups: dict[object, list[float]] = {}
    for place, index in enumerate(order):
        key = values[index] if few else place * _GROUPS // len(values)
        groups.setdefault(key, []).append(outcome[index])
    return groups


def _rank(value: Value) -> tuple[float, str]:
    """What values are ordered by: numbers by size, words by their letters."""
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def trial_kind(trial: TrialResult, best: int | None) -> str:
    """How a trial is drawn: "best", "own", or its state."""
    if trial.index == best:
        return "best"
    return "own" if trial.index == 0 else trial.state
