"""The geometry of plots: what is drawn lies where its numbers say."""

import math

import pytest

from corrector.record.correction import CurvePoint
from corrector.report.plots import interval_plot, loss_plot, nice_ticks, number, signed


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.41, [0.0, 0.2, 0.4, 0.6]),
        (1, 400, [0, 100, 200, 300, 400]),
        (-3.0, 7.0, [-5, 0, 5, 10]),
        (2.0, 2.0, [2.0, 2.5, 3.0]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high, 4 if high < 10 else 5) == pytest.approx(expected)


def test_a_curve_is_drawn_to_scale() -> None:
    curve = [CurvePoint(step=step, loss=loss) for step, loss in ((1, 0.4), (51, 0.2), (101, 0.0))]
    plot = loss_plot(curve)
    assert plot is not None
    (line,) = plot.lines
    points = [tuple(float(part) for part in pair.split(",")) for pair in line.raw.split()]
    middle = (plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2
    assert points == [(plot.left, plot.top), pytest.approx(middle), (plot.right, plot.bottom)]
    assert [tick.label for tick in plot.x_ticks] == ["20", "40", "60", "80", "100"]


def test_a_curve_without_finite_numbers_is_not_drawn() -> None:
    assert loss_plot([]) is None
    assert loss_plot([CurvePoint(step=step, loss=math.nan) for step in (1, 2)]) is None


def test_points_that_are_not_finite_are_left_out_and_preservation_is_a_line_of_its_own() -> None:
    curve = [CurvePoint(step=step, loss=1.0, preservation_loss=0.5) for step in (1, 2)]
    plot = loss_plot([*curve, CurvePoint(step=3, loss=math.nan)])
    assert plot is not None
    assert [line.name for line in plot.lines] == ["prediction loss", "preservation loss"]
    assert all("nan" not in line.raw for line in plot.lines)


def test_intervals_share_a_scale_that_includes_zero() -> None:
    plot = interval_plot([("a", -30.0, -20.0, -10.0, True), ("b", -2.0, 1.0, 4.0, False)])
    assert plot is not None
    first, second = plot.rows
    assert first.low < first.value < first.high < plot.zero
    assert second.low < plot.zero < second.value < second.high < plot.width
    unit = (first.high - first.low) / 20
    assert second.high - second.low == pytest.approx(6 * unit, abs=0.2)
    assert first.text == "−20.0 [−30.0, −10.0]"
    assert interval_plot([("a", math.nan, 0.0, 1.0, True)]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (None, "–"), (math.nan, "–"), (-63.52, "−63.5"), (331.04, "331"),
        (0.00049975, "0.000500"),
        (12345.6, "12346"), (0.18234, "0.182"), (3.1e-7, "3.10e−7"), (math.inf, "∞"), (0.9999, "1.00"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(value: float | None, text: str) -> None:
    assert number(value) == text


def test_differences_carry_their_sign() -> None:
    assert [signed(value) for value in (1.5, -1.5, 0.0, math.nan)] == ["+1.50", "−1.50", "0", "–"]
