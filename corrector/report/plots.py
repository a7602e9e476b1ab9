"""The geometry of the report's plots; the template draws them, so that colours follow the page's theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from corrector.record.correction import CurvePoint


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it lies in the drawing, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve: its name, an SVG polyline's `points` smoothed and as measured, and the last smoothed value."""

    name: str
    smooth: str
    raw: str
    last: str


@dataclass(frozen=True)
class LossPlot:
    """Training losses over steps, in a drawing of `width` by `height` with axes at `left` and `bottom`."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str


@dataclass(frozen=True)
class IntervalRow:
    """One estimate with its interval, as positions in the drawing and as text."""

    label: str
    low: float
    value: float
    high: float
    text: str
    good: bool


@dataclass(frozen=True)
class IntervalPlot:
    """Estimates with intervals over one scale on which zero means no difference."""

    width: int
    zero: float
    rows: tuple[IntervalRow, ...]


def loss_plot(curve: Sequence[CurvePoint], width: int = 520, height: int = 200) -> LossPlot | None:
    """The losses of a fine-tune, smoothed by a trailing mean over 10 %; None for fewer than two points."""
    series = {
        "prediction loss": [(p.step, p.loss) for p in curve if math.isfinite(p.loss)],
        "preservation loss": [
            (p.step, p.preservation_loss)
            for p in curve
            if p.preservation_loss is not None and math.isfinite(p.preservation_loss)
        ],
    }
    series = {name: points for name, points in series.items() if len(points) >= 2}
    if "prediction loss" not in series:
        return None
    left, right, top, bottom = 52, width - 12, 10, height - 34
    steps = [step for points in series.values() for step, _ in points]
    values = [value for points in series.values() for _, value in points]
    first, last = min(steps), max(steps)
    y_marks = nice_ticks(min(0.0, *values), max(values), 4)
    low, high = y_marks[0], y_marks[-1]

    def x(step: float) -> float:
        return left + (right - left) * (step - first) / max(last - first, 1)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / ((high - low) or 1.0)

    def polyline(points: Sequence[tuple[int, float]]) -> str:
        return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)

    lines = []
    for name, points in series.items():
        smooth = _trailing_mean(points, max(1, len(points) // 10))
        lines.append(Line(name, polyline(smooth), polyline(points), number(smooth[-1][1])))
    x_marks = [step for step in nice_ticks(first, last, 5) if first <= step <= last]
    return LossPlot(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        lines=tuple(lines),
        x_ticks=tuple(Tick(x(step), f"{step:g}") for step in x_marks),
        y_ticks=tuple(Tick(y(value), f"{value:g}") for value in y_marks),
        summary="; ".join(f"{line.name} ends at {line.last}" for line in lines) + f" after {last} steps",
    )


def interval_plot(
    rows: Sequence[tuple[str, float, float, float, bool]], width: int = 420
) -> IntervalPlot | None:
    """Rows of (label, low, value, high, good) on one scale that includes zero; None without finite rows."""
    rows = [row for row in rows if all(math.isfinite(number) for number in row[1:4])]
    if not rows:
        return None
    low, high = min(0.0, *(row[1] for row in rows)), max(0.0, *(row[3] for row in rows))
    margin = 0.06 * ((high - low) or 1.0)
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return round(width * (value - low) / (high - low), 1)

    return IntervalPlot(
        width,
        x(0.0),
        tuple(
            IntervalRow(label, x(a), x(value), x(b), f"{signed(value)} [{signed(a)}, {signed(b)}]", good)
            for label, a, value, b, good in rows
        ),
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose `low` to `high`, spaced by 1, 2 or 5 times a power of ten."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading: `digits` significant digits, no exponent for everyday sizes, "–" for none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if value == 0:
        return "0"
    if not -5 < int(exponent) < 6:
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return f"{value:.{max(0, digits - 1 - int(exponent))}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference for reading: always with its sign."""
    text = number(value)
    return text if value is None or math.isnan(value) or value <= 0 else f"+{text}"


def _trailing_mean(points: Sequence[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    means = []
    for index, (step, _) in enumerate(points):
        recent = [value for _, value in points[max(0, index + 1 - window) : index + 1]]
        means.append((step, sum(recent) / len(recent)))
    return means
