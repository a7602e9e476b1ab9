"""The geometry of a search's plots: distance over rank and learning rate, and over seconds with its Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from corrector.record.search import TrialResult
from corrector.report.plots import Tick, nice_ticks, number
from corrector.report.search_axes import trial_kind

COLUMNS = 6


@dataclass(frozen=True)
class HeatCell:
    """The best trial of one rank and one span of learning rates.

    Attributes:
        text: Its distance as a share of the base's; empty where nothing was tried.
        shade: 0 for the nearest of all cells to 1 for the farthest.
        title: Which trial it is, and how far it went.
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
class Dot:
    """One trial in the drawing; `front` where no other was both nearer and cheaper."""

    x: float
    y: float
    kind: str
    front: bool
    title: str


@dataclass(frozen=True)
class ParetoPlot:
    """Distance over the seconds that trials took, in a drawing of `width` by `height` with axes at `left` and `bottom`."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    dots: tuple[Dot, ...]
    front: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str


def heat_map(trials: Sequence[TrialResult], own_rank: int, own_rate: float) -> HeatMap | None:
    """The distance of the scored trials by rank and learning rate; None for fewer than two.

    Args:
        own_rank: What trials have that do not vary it; `own_rate` likewise.
    """
    scored = [trial for trial in trials if trial.reports]
    if len(scored) < 2:
        return None
    rank = {trial.index: int(trial.configuration.get("rank") or own_rank) for trial in scored}
    rate = {trial.index: float(trial.configuration.get("learning_rate") or own_rate) for trial in scored}
    edges = _edges(sorted(set(rate.values())))
    distances = [_distance(trial) for trial in scored]
    low, high = min(distances), max(distances)
    rows = []
    for own in sorted(set(rank.values()), reverse=True):
        cells = []
        for start, stop in edges:
            inside = [t for t in scored if rank[t.index] == own and start <= rate[t.index] <= stop]
            cells.append(_cell(inside, low, high))
        rows.append((str(own), tuple(cells)))
    labels = tuple(f"{start:g}" if start == stop else f"{start:g} to {stop:g}" for start, stop in edges)
    return HeatMap(labels, tuple(rows))


def pareto_plot(
    trials: Sequence[TrialResult], best: int | None, width: int = 520, height: int = 240
) -> ParetoPlot | None:
    """Where every scored trial ended, seconds against distance; None for fewer than two."""
    scored = sorted(
        (trial for trial in trials if trial.reports),
        key=lambda trial: (trial.reports[-1].seconds, _distance(trial)),
    )
    if len(scored) < 2:
        return None
    left, right, top, bottom = 52, width - 12, 10, height - 34
    x_marks = nice_ticks(0.0, max(trial.reports[-1].seconds for trial in scored), 5)
    y_marks = nice_ticks(0.0, max(_distance(trial) for trial in scored), 4)

    def at(trial: TrialResult) -> tuple[float, float]:
        x = left + (right - left) * trial.reports[-1].seconds / x_marks[-1]
        y = bottom - (bottom - top) * (_distance(trial) - y_marks[0]) / (y_marks[-1] - y_marks[0])
        return round(x, 1), round(y, 1)

    front: list[TrialResult] = []
    for trial in scored:
        if not front or _distance(trial) < _distance(front[-1]):
            front.append(trial)
    dots = [
        Dot(*at(trial), trial_kind(trial, best), trial in front, describe_trial(trial)) for trial in scored
    ]
    return ParetoPlot(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        dots=tuple(dots),
        front=" ".join(f"{x},{y}" for x, y in map(at, front)),
        x_ticks=tuple(Tick(left + (right - left) * mark / x_marks[-1], f"{mark:g}") for mark in x_marks),
        y_ticks=tuple(
            Tick(bottom - (bottom - top) * (mark - y_marks[0]) / (y_marks[-1] - y_marks[0]), f"{mark:.0%}")
            for mark in y_marks
        ),
        summary="; ".join(describe_trial(trial) for trial in front),
    )


def describe_trial(trial: TrialResult) -> str:
    """A trial's configuration and how far it came, in one line."""
    varied = ", ".join(f"{key} {value}" for key, value in trial.configuration.items())
    last = trial.reports[-1]
    return (
        f"trial {trial.index} ({varied}): {_distance(trial):.0%} of the base's distance, FID {number(last.score.fid)}, "
        f"{trial.state} at step {last.steps} after {number(last.seconds)} s"
    )


def _cell(inside: Sequence[TrialResult], low: float, high: float) -> HeatCell:
    if not inside:
        return HeatCell("", 1.0, "not tried")
    # What was scored by the whole protocol says more than what was stopped early.
    best = min(inside, key=lambda trial: (trial.state != "finished", _distance(trial)))
    shade = (_distance(best) - low) / (high - low) if high > low else 0.0
    return HeatCell(f"{_distance(best):.0%}", round(shade, 3), describe_trial(best))


def _edges(rates: Sequence[float]) -> list[tuple[float, float]]:
    """Spans of learning rates: each by itself where they are few, else equal steps of their logarithm that hold any."""
    if len(rates) <= COLUMNS:
        return [(rate, rate) for rate in rates]
    low, high = math.log(rates[0]), math.log(rates[-1])
    groups: dict[int, list[float]] = {}
    for rate in rates:
        column = min(COLUMNS - 1, int((math.log(rate) - low) / (high - low) * COLUMNS))
        groups.setdefault(column, []).append(rate)
    return [(group[0], group[-1]) for group in groups.values()]


def _distance(trial: TrialResult) -> float:
    return trial.reports[-1].score.distance
