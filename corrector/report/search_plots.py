"""Plots of a search's trials: by rank and learning rate, over seconds, and over all hyper-parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from corrector.evaluation.scorecard_figures import number
from corrector.prompts.search_settings import NUMERIC, Value
from corrector.record.search_results import TrialResult
from corrector.report.plots import Chart, nice_ticks, polyline, svg

COLUMNS = 6
_GROUPS = 3
_TICK_LABEL = Markup('<text class="mark" x="{:.1f}" y="{:.1f}">{}</text>')
_VERTICAL_AXIS = Markup(
    '<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text x="{0}" y="14" text-anchor="middle">{3}</text>'
)


@dataclass(frozen=True)
class HeatCell:
    """The best trial of one rank and one range of learning rates.

    Attributes:
        text: Its distance as a share of the base's; empty where nothing was tried.
        shade: From 0 for the cell with the lowest distance to 1 for the highest.
        title: Its description (`describe_trial`); "not tried" without a trial.
    """

    text: str
    shade: float
    title: str


@dataclass(frozen=True)
class HeatMap:
    """Rows of ranks, highest first, over columns of learning rates, lowest first."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True)
class Importance:
    """The share of the variance between `n` trials that one hyper-parameter explains, 0 to 1."""

    name: str
    share: float
    n: int


def heat_map(trials: Sequence[TrialResult], own_rank: int, own_rate: float) -> HeatMap | None:
    """The distance of the scored trials by rank and learning rate; None for fewer than two.

    Args:
        own_rank: The rank of trials that do not vary it; `own_rate` likewise.
    """
    scored = [trial for trial in trials if trial.reports]
    if len(scored) < 2:
        return None
    rank = {trial.index: int(trial.configuration.get("rank") or own_rank) for trial in scored}
    rate = {trial.index: float(trial.configuration.get("learning_rate") or own_rate) for trial in scored}
    spans = _spans(sorted(set(rate.values())))
    distances = [_distance(trial) for trial in scored]
    rows = []
    for own in sorted(set(rank.values()), reverse=True):
        inside = ([t for t in scored if rank[t.index] == own and a <= rate[t.index] <= b] for a, b in spans)
        rows.append((str(own), tuple(_cell(each, min(distances), max(distances)) for each in inside)))
    return HeatMap(tuple(f"{a:g}" if a == b else f"{a:g} to {b:g}" for a, b in spans), tuple(rows))


def pareto_front(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The Pareto front of the scored trials in seconds and distance, the cheapest first."""
    front: list[TrialResult] = []
    for trial in sorted(
        (t for t in trials if t.reports), key=lambda t: (t.reports[-1].seconds, _distance(t))
    ):
        if not front or _distance(trial) < _distance(front[-1]):
            front.append(trial)
    return front


def pareto_plot(
    trials: Sequence[TrialResult], best: int | None, width: int = 520, height: int = 240
) -> Markup | None:
    """The last seconds and distance of each scored trial; None for fewer than two."""
    scored = [trial for trial in trials if trial.reports]
    if len(scored) < 2:
        return None
    x_ticks = nice_ticks(0.0, max(trial.reports[-1].seconds for trial in scored), 5)
    y_ticks = nice_ticks(0.0, max(map(_distance, scored)), 4)
    chart = Chart((0.0, x_ticks[-1]), (y_ticks[0], y_ticks[-1]), width, height)
    chart.axes(x_ticks, y_ticks, "seconds", "{:.0%}".format)
    front = pareto_front(scored)
    chart.line([(trial.reports[-1].seconds, _distance(trial)) for trial in front], "first faint")
    for trial in scored:
        kind = trial_kind(trial, best)
        style = f"dot {kind} front" if trial in front else f"dot {kind}"
        radius = 6 if kind in ("best", "own") else 4
        chart.dot(trial.reports[-1].seconds, _distance(trial), style, radius, describe_trial(trial))
    return chart.svg("Distance over seconds; the front: " + "; ".join(map(describe_trial, front)))


def parallel_plot(
    trials: Sequence[TrialResult], best: int | None, width: int = 1080, height: int = 250
) -> Markup | None:
    """Parallel coordinates of scored trials: hyper-parameters and distance; None for fewer than two or if nothing varies."""
    scored = [trial for trial in trials if trial.reports]
    keys = list(scored[0].configuration) if scored else []
    if len(scored) < 2 or not keys:
        return None
    top, bottom, left, right = 28, height - 14, 60, width - 60
    ways: dict[int, list[tuple[float, float]]] = {trial.index: [] for trial in scored}
    axes = []
    for place, name in enumerate([*keys, "distance"]):
        x = round(left + (right - left) * place / len(keys), 1)
        values = [_distance(t) if name == "distance" else t.configuration[name] for t in scored]
        shares, labels = _scale(name, values)
        for trial, share in zip(scored, shares, strict=True):
            ways[trial.index].append((x, round(bottom - share * (bottom - top), 1)))
        axes.append(_VERTICAL_AXIS.format(x, top, bottom, name.replace("_", " ")))
        axes += [
            _TICK_LABEL.format(x + 6, bottom - share * (bottom - top) + 4, label) for share, label in labels
        ]
    scored.sort(key=lambda trial: trial.index == best)  # the best is painted last, above all others
    lines = [
        polyline(ways[trial.index], f"way {trial_kind(trial, best)}", f"trial {trial.index}")
        for trial in scored
    ]
    return svg(width, height, "Parallel coordinates of all trials", [*lines, *axes])


def importances(trials: Sequence[TrialResult]) -> tuple[Importance, ...]:
    """The share of the distance's variance that each hyper-parameter explains, at the first rung of the scored trials.

    The share is adjusted eta squared of the distance's logarithm over groups of similar values; without an effect it is 0 on
    average. Shares need not add up to 1, because hyper-parameters interact. Fewer than six trials give no result.

    `optuna.importance` scales its shares to a sum of 1, so its highest share is large even without any effect: over 30
    searches of 24 trials with random distances it averages 0.73, and the highest share here 0.05.
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


def trial_kind(trial: TrialResult, best: int | None) -> str:
    """The kind of a trial: "best", "own", or its state."""
    if trial.index == best:
        return "best"
    return "own" if trial.index == 0 else trial.state


def describe_trial(trial: TrialResult) -> str:
    """A trial's configuration and last scores, in one line."""
    varied = ", ".join(f"{key} {value}" for key, value in trial.configuration.items())
    last = trial.reports[-1]
    return (
        f"trial {trial.index} ({varied}): {_distance(trial):.0%} of the base's distance, FID {number(last.score.fid)}, "
        f"{trial.state} at step {last.steps} after {number(last.seconds)} s"
    )


def _cell(inside: Sequence[TrialResult], low: float, high: float) -> HeatCell:
    if not inside:
        return HeatCell("", 1.0, "not tried")
    # A finished trial was scored by the whole protocol, so it comes before one that was stopped early.
    best = min(inside, key=lambda trial: (trial.state != "finished", _distance(trial)))
    shade = (_distance(best) - low) / (high - low) if high > low else 0.0
    return HeatCell(f"{_distance(best):.0%}", round(shade, 3), describe_trial(best))


def _spans(rates: Sequence[float]) -> list[tuple[float, float]]:
    """Ranges of learning rates: one for each if they are few, else non-empty ranges of equal width in the logarithm."""
    if len(rates) <= COLUMNS:
        return [(rate, rate) for rate in rates]
    low, high = math.log(rates[0]), math.log(rates[-1])
    groups: dict[int, list[float]] = {}
    for rate in rates:
        column = min(COLUMNS - 1, int((math.log(rate) - low) / (high - low) * COLUMNS))
        groups.setdefault(column, []).append(rate)
    return [(group[0], group[-1]) for group in groups.values()]


def _scale(name: str, values: Sequence[Value]) -> tuple[list[float], list[tuple[float, str]]]:
    """The position of each value, 0 to 1, and labels with positions; numbers other than distances on a log scale."""
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
    """Adjusted eta squared of `outcome`, grouped by value if there are few, else by thirds of the sorted values."""
    few = len(set(values)) <= _GROUPS
    ordered = sorted(zip(values, outcome, strict=True), key=lambda pair: _rank(pair[0]))
    groups: dict[object, list[float]] = {}
    for place, (value, result) in enumerate(ordered):
        groups.setdefault(value if few else place * _GROUPS // len(values), []).append(result)
    n, mean = len(outcome), fmean(outcome)
    total = sum((each - mean) ** 2 for each in outcome)
    if len(groups) < 2 or n <= len(groups) or not total:
        return 0.0
    within = sum((each - fmean(group)) ** 2 for group in groups.values() for each in group)
    return max(0.0, 1 - (within / (n - len(groups))) / (total / (n - 1)))


def _rank(value: Value) -> tuple[float, str]:
    """A sort key: numbers by size, words alphabetically."""
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def _distance(trial: TrialResult) -> float:
    return trial.reports[-1].score.distance
