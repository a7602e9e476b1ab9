"""The page of a search shows every trial, where it lay, and what was chosen."""

from __future__ import annotations

import re
from pathlib import Path

from corrector.prompts import HyperParameters
from corrector.prompts.search_settings import Configuration
from corrector.report.search_page import write_search_report
from corrector.report.search_plots import (
    COLUMNS,
    heat_map,
    importances,
    parallel_plot,
    pareto_front,
    pareto_plot,
)
from tests.support.search_results import search_result, trial

TRIALS = search_result().prompts[0].trials


def test_the_heat_map_has_the_best_of_each_rank_and_rate() -> None:
    found = heat_map(TRIALS, 8, 2e-3)

    assert found is not None
    assert found.columns == ("0.001", "0.002", "0.004")
    assert [(rank, [cell.text for cell in cells]) for rank, cells in found.rows] == [
        ("16", ["", "", "21%"]),
        ("8", ["", "40%", ""]),
        ("4", ["90%", "", ""]),
    ]
    assert found.rows[0][1][2].shade == 0.0
    assert found.rows[2][1][0].shade == 1.0


def test_many_learning_rates_are_gathered_in_few_columns() -> None:
    many = [trial(n, {"rank": 4, "learning_rate": 1e-4 * 1.3**n}, 0.5 + 0.01 * n) for n in range(20)]
    found = heat_map(many, 4, 1e-4)

    assert found is not None
    assert len(found.columns) == COLUMNS
    assert all(cell.text for cell in found.rows[0][1])


def test_a_finished_trial_stands_for_its_cell_before_one_that_was_stopped() -> None:
    same: Configuration = {"rank": 4, "learning_rate": 1e-3}
    found = heat_map([trial(0, same, 0.2), trial(1, same, 0.9, 0.5, 0.3)], 4, 1e-3)

    assert found is not None
    assert found.rows[0][1][0].text == "30%"


def test_the_front_holds_what_nothing_beats_in_both_time_and_distance() -> None:
    cheap, slow_and_worse = trial(4, {}, 0.85), trial(5, {}, 0.9, 0.9, 0.95)
    trials = [*TRIALS, cheap, slow_and_worse]
    plot = pareto_plot(trials, 2)

    assert plot is not None
    assert [each.index for each in pareto_front(trials)] == [4, 2]
    assert re.findall(r"dot (\w+) front", plot) == ["best", "stopped"]
    assert plot.count("<circle") == 5


def test_nothing_is_drawn_of_a_single_trial() -> None:
    assert heat_map(TRIALS[:1], 8, 2e-3) is None
    assert pareto_plot(TRIALS[:1], None) is None


def test_the_page_shows_all_trials_and_escapes_what_users_wrote(tmp_path: Path) -> None:
    own = {"person": HyperParameters(rank=8, learning_rate=2e-3)}
    page = write_search_report(search_result(), own, tmp_path / "search.html").read_text()

    assert "&lt;lying&gt;" in page
    assert "<lying>" not in page
    assert "the loss became nan" in page
    assert "best on fresh seeds" in page
    assert page.count('<th scope="row">') == 4 + 3
    assert "<script" not in page


def test_parallel_coordinates_lead_every_trial_over_every_axis_to_its_distance() -> None:
    plot = parallel_plot(TRIALS, 2, height=250)

    assert plot is not None
    assert re.findall(r'text-anchor="middle">([^<]*)<', plot) == ["rank", "learning rate", "distance"]
    assert re.findall(r'class="mark"[^>]*>([^<]*)<', plot) == ["4", "16", "0.001", "0.004", "21%", "90%"]
    ways = re.findall(r'class="way (\w+)" points="([^"]*)"', plot)
    assert [kind for kind, _ in ways] == ["own", "stopped", "best"], "the best is painted last"
    ends = {kind: float(points.rpartition(",")[2]) for kind, points in ways}
    assert (ends["stopped"], ends["best"]) == (28, 236), "from the top to the bottom of the axis"


def test_what_decides_the_distance_is_important_and_what_does_not_is_not() -> None:
    trials = [
        trial(n, {"rank": 4 * 2 ** (n % 3), "learning_rate": 1e-4 * 1.5**n}, 0.9 * 0.8**n) for n in range(12)
    ]
    shares = {each.name: each.share for each in importances(trials)}

    assert shares["learning_rate"] > 0.7
    assert shares["rank"] < 0.1
    assert importances(trials[:4]) == ()
