"""The report's plots as inline SVG. Their colours come from classes in report.css, so that they follow the page's theme.

matplotlib takes 44 ms and 19 kB for a loss curve of 80 steps and 0.4 s for its import; `loss_plot` takes 0.4 ms and 4 kB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from corrector.evaluation.scorecard_figures import Interval, change_text, number
from corrector.record.correction_record import CurvePoint

_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
_GRID_LINE = Markup('<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
_SPAN = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}" vector-effect="non-scaling-stroke"/>')


class Chart:
    """A drawing of data points between axes; parts are painted in the order in which they are added.

    Attributes:
        left, right, top, bottom: Where the axes lie, in units of the drawing of `width` by `height`.
    """

    def __init__(
        self, x_range: tuple[float, float], y_range: tuple[float, float], width: int, height: int
    ) -> None:
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = 52, width - 12, 10, height - 34
        self._x_range, self._y_range = x_range, y_range
        self._parts: list[Markup] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The position of a data point in the drawing."""
        (x0, x1), (y0, y1) = self._x_range, self._y_range
        return (
            round(self.left + (self.right - self.left) * (x - x0) / ((x1 - x0) or 1), 1),
            round(self.bottom - (self.bottom - self.top) * (y - y0) / ((y1 - y0) or 1), 1),
        )

    def axes(
        self,
        x_ticks: Iterable[float],
        y_ticks: Iterable[float],
        x_title: str,
        y_format: Callable[[float], str],
    ) -> None:
        """Labelled ticks on both axes, with a grid line at each of `y_ticks`."""
        for tick in y_ticks:
            y = self.at(self._x_range[0], tick)[1]
            self._parts.append(_GRID_LINE.format(self.left, self.right, y, y))
            self._parts.append(_TEXT.format(self.left - 8, y + 4, "end", y_format(tick)))
        for tick in x_ticks:
            x = self.at(tick, self._y_range[0])[0]
            self._parts.append(_TEXT.format(x, self.bottom + 18, "middle", f"{tick:g}"))
        self._parts.append(_TEXT.format(self.right, self.height - 1, "end", x_title))

    def line(self, points: Iterable[tuple[float, float]], style: str) -> None:
        """A polyline through data points; `style` names its CSS classes."""
        self._parts.append(polyline((self.at(x, y) for x, y in points), style))

    def dot(self, x: float, y: float, style: str, radius: int, title: str) -> None:
        """A circle at a data point; a browser shows `title` as a tooltip."""
        circle = Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>')
        self._parts.append(circle.format(style, *self.at(x, y), radius, title))

    def svg(self, description: str) -> Markup:
        """The drawing, with `description` for screen readers."""
        return svg(self.width, self.height, description, self._parts)


@dataclass(frozen=True)
class LossPlot:
    """A drawing of losses over steps, and the name and last smoothed value of each curve."""

    svg: Markup
    curves: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class IntervalRow:
    """A difference with its interval: its name, its text, its colour (a CSS class), and a drawing."""

    label: str
    text: str
    colour: str
    svg: Markup


def loss_plot(curve: Sequence[CurvePoint], width: int = 520, height: int = 200) -> LossPlot | None:
    """The losses of a fine-tune, smoothed by a trailing mean over 10 %; None for fewer than two points."""
    series = {
        "prediction loss": [(p.step, p.loss) for p in curve],
        "preservation loss": [
            (p.step, p.preservation_loss) for p in curve if p.preservation_loss is not None
        ],
    }
    finite = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    drawn = {name: points for name, points in finite.items() if len(points) >= 2}
    if "prediction loss" not in drawn:
        return None
    steps, values = zip(*(point for points in drawn.values() for point in points), strict=True)
    y_ticks = nice_ticks(min(0.0, *values), max(values), 4)
    chart = Chart((min(steps), max(steps)), (y_ticks[0], y_ticks[-1]), width, height)
    x_ticks = [step for step in nice_ticks(min(steps), max(steps), 5) if min(steps) <= step <= max(steps)]
    chart.axes(x_ticks, y_ticks, "optimiser step", "{:g}".format)
    curves = []
    for (name, points), colour in zip(drawn.items(), ("first", "second"), strict=False):
        smooth = _trailing_mean(points, max(1, len(points) // 10))
        chart.line(points, f"{colour} faint")
        chart.line(smooth, f"{colour} curve")
        curves.append((name, number(smooth[-1][1])))
    ends = "; ".join(f"{name} ends at {last}" for name, last in curves)
    return LossPlot(chart.svg(f"Training loss over steps: {ends} after {max(steps)} steps"), tuple(curves))


def interval_rows(
    rows: Sequence[tuple[str, Interval]], *, most: float | None = None, width: int = 420
) -> list[IntervalRow]:
    """Differences by label, drawn on one scale that includes zero; lower is better.

    Args:
        most: Upper bounds below this are good and others bad; None: intervals below 0 are good, those above it bad.
    """
    low = min([0.0, *(interval.low for _, interval in rows)])
    high = max([0.0, *(interval.high for _, interval in rows)])
    margin = 0.06 * ((high - low) or 1.0)

    def x(value: float) -> float:
        return round(width * (value - low + margin) / (high - low + 2 * margin), 1)

    drawn = []
    for label, interval in rows:
        text = change_text(interval)
        parts = [
            _SPAN.format("zero", x(0), x(0), 1, 25),
            _SPAN.format("span", x(interval.low), x(interval.high), 13, 13),
            _SPAN.format("span", x(interval.value), x(interval.value), 7, 19),
        ]
        colour = _colour(interval, most)
        row = svg(width, 26, f"{label}: {text}", parts, style=colour, stretched=True)
        drawn.append(IntervalRow(label, text, colour, row))
    return drawn


def svg(
    width: int,
    height: int,
    description: str,
    parts: Iterable[Markup],
    *,
    style: str = "",
    stretched: bool = False,
) -> Markup:
    """A drawing of `parts`; a stretched one does not keep its proportions."""
    opening = Markup('<svg viewBox="0 0 {} {}" class="{}" role="img" aria-label="{}"{}>').format(
        width, height, style, description, Markup(' preserveAspectRatio="none"') if stretched else ""
    )
    return opening + Markup("").join(parts) + Markup("</svg>")


def polyline(points: Iterable[tuple[float, float]], style: str, title: str = "") -> Markup:
    """A line through positions in the drawing."""
    places = " ".join(f"{x},{y}" for x, y in points)
    shown = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<polyline class="{}" points="{}">{}</polyline>').format(style, places, shown)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose `low` to `high`, spaced by 1, 2 or 5 times a power of ten."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _colour(difference: Interval, most: float | None) -> str:
    if difference.high < (0 if most is None else most):
        return "good"
    return "bad" if most is not None or difference.low > 0 else "soft"


def _trailing_mean(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    sums = [0.0, *accumulate(value for _, value in points)]
    means = []
    for end, (step, _) in enumerate(points, start=1):
        start = max(0, end - window)
        means.append((step, (sums[end] - sums[start]) / (end - start)))
    return means
