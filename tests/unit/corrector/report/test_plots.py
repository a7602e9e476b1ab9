"""The geometry of plots: what is drawn lies where its numbers say."""

import math
import re

import pytest

from corrector.evaluation.scorecard_figures import Interval
from corrector.record.correction_record import CurvePoint
from corrector.report.plots import interval_rows, loss_plot, nice_ticks


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


def polylines(svg: str) -> dict[str, list[list[float]]]:
    """The points of every polyline by its classes."""
    found = re.findall(r'<polyline class="([^"]*)" points="([^"]*)"', svg)
    return {style: [list(map(float, pair.split(","))) for pair in points.split()] for style, points in found}


def test_a_curve_is_drawn_to_scale() -> None:
    curve = [CurvePoint(step=step, loss=loss) for step, loss in ((1, 0.4), (51, 0.2), (101, 0.0))]
    plot = loss_plot(curve, width=520, height=200)
    assert plot is not None
    left, right, top, bottom = 52, 508, 10, 166
    middle = [(left + right) / 2, (top + bottom) / 2]
    assert polylines(plot.svg)["first faint"] == [[left, top], pytest.approx(middle), [right, bottom]]
    assert re.findall(r'text-anchor="middle">([^<]*)<', plot.svg) == ["20", "40", "60", "80", "100"]
    assert 'aria-label="Training loss over steps: prediction loss ends at 0 after 101 steps"' in plot.svg


def test_a_curve_without_finite_numbers_is_not_drawn() -> None:
    assert loss_plot([]) is None
    assert loss_plot([CurvePoint(step=step, loss=math.nan) for step in (1, 2)]) is None


def test_points_that_are_not_finite_are_left_out_and_preservation_is_a_line_of_its_own() -> None:
    curve = [CurvePoint(step=step, loss=1.0, preservation_loss=0.5) for step in (1, 2)]
    plot = loss_plot([*curve, CurvePoint(step=3, loss=math.nan)])
    assert plot is not None
    assert plot.curves == (("prediction loss", "1.00"), ("preservation loss", "0.500"))
    assert set(polylines(plot.svg)) == {"first faint", "first curve", "second faint", "second curve"}
    assert "nan" not in plot.svg


def test_intervals_share_a_scale_that_includes_zero() -> None:
    rows = [
        ("a", Interval(low=-30, value=-20, high=-10)),
        ("b", Interval(low=-2, value=1, high=4)),
    ]
    first, second = interval_rows(rows, width=420)
    places = [
        [float(x) for pair in re.findall(r'x1="([^"]*)" x2="([^"]*)"', row.svg) for x in pair]
        for row in (first, second)
    ]
    (zero, _, low, high, value, _), (_, _, other_low, other_high, other_value, _) = places
    assert low < value < high < zero
    assert other_low < zero < other_value < other_high < 420
    assert other_high - other_low == pytest.approx(6 * (high - low) / 20, abs=0.2)
    assert first.text == "−20 [−30, −10]"
    assert interval_rows([]) == []


@pytest.mark.parametrize(
    ("most", "colours"),
    [(None, ["good", "soft", "bad"]), (0.0, ["good", "bad", "bad"]), (6.0, ["good"] * 2 + ["bad"])],
)
def test_an_interval_is_coloured_by_its_bound_and_without_one_by_whether_it_excludes_zero(
    most: float | None, colours: list[str]
) -> None:
    rows = [("", Interval(low=low, value=low + 1, high=low + 5)) for low in (-10, -1, 2)]
    drawn = interval_rows(rows, most=most)
    assert [row.colour for row in drawn] == colours
    assert all(f'class="{row.colour}"' in row.svg for row in drawn)
