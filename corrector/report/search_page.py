"""The page for people about a search: one self-contained HTML file with every prompt's trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from corrector.files import write_atomically
from corrector.prompts import HyperParameters
from corrector.record.search import PromptSearchResult, SearchResult, TrialResult
from corrector.report.page import environment, resource
from corrector.report.plots import IntervalPlot, interval_plot, number
from corrector.report.search_axes import Importance, ParallelPlot, importances, parallel_plot
from corrector.report.search_plots import HeatMap, ParetoPlot, heat_map, pareto_plot


@dataclass(frozen=True)
class TrialRow:
    """One trial as the table shows it."""

    name: str
    configuration: str
    state: str
    detail: str
    steps: str
    score: str
    fid: str
    damage: str
    diversity: str
    confirmed: str
    seconds: str
    best: bool


@dataclass(frozen=True)
class SearchView:
    """One prompt of the search on the page."""

    prompt: str
    reason: str
    difference: IntervalPlot | None
    heat: HeatMap | None
    pareto: ParetoPlot | None
    parallel: ParallelPlot | None
    importances: tuple[Importance, ...]
    rows: tuple[TrialRow, ...]


def write_search_report(result: SearchResult, own: Mapping[str, HyperParameters], path: Path) -> Path:
    """Write the report of a search as one HTML file without scripts or references to anything outside.

    Args:
        own: Each prompt's own hyper-parameters, by its name.
        path: Written whole or not at all.

    Returns:
        `path`.
    """
    facts = [
        ("Batch", Path(result.batch).name),
        ("Base", result.base),
        ("Objective", f"{result.objective} in {result.extractor}"),
        ("Trials", str(sum(len(prompt.trials) for prompt in result.prompts))),
        ("Seconds", f"{result.seconds:g}"),
        ("The best before and after", "report.html, beside this page"),
    ]
    html = environment().from_string(resource("search.html.jinja")).render(
        title=f"Search: {result.run}",
        style=Markup(resource("report.css")),  # noqa: S704 (our own file)
        facts=facts,
        views=[_view(prompt, own[prompt.name]) for prompt in result.prompts],
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, html)


def _view(prompt: PromptSearchResult, own: HyperParameters) -> SearchView:
    difference = None
    if prompt.difference is not None and prompt.interval is not None and prompt.best != 0:
        low, high = prompt.interval
        label = "FID against the prompt's own configuration, on fresh seeds"
        difference = interval_plot([(label, low, prompt.difference, high, high < 0)])
    ordered = sorted(prompt.trials, key=_order)
    return SearchView(
        prompt=prompt.prompt,
        reason=prompt.reason or "No trial came to its end.",
        difference=difference,
        heat=heat_map(prompt.trials, own.rank, own.learning_rate),
        pareto=pareto_plot(prompt.trials, prompt.best),
        parallel=parallel_plot(prompt.trials, prompt.best),
        importances=importances(prompt.trials),
        rows=tuple(_row(trial, prompt.best) for trial in ordered),
    )


def _order(trial: TrialResult) -> tuple[float, int, float]:
    """Confirmed trials first, then by how far they came."""
    confirmed = float("inf") if trial.confirmed is None else trial.confirmed.score
    steps = trial.reports[-1].steps if trial.reports else 0
    return confirmed, -steps, float("inf") if trial.score is None else trial.score


def _row(trial: TrialResult, best: int | None) -> TrialRow:
    last = trial.reports[-1] if trial.reports else None
    figures = ["–"] * 6
    if last is not None:
        score = last.score
        figures = [
            str(last.steps),
            number(score.score),
            number(score.fid),
            f"{score.damage:.0%}",
            number(score.diversity),
            number(last.seconds),
        ]
    steps, value, fid, damage, diversity, seconds = figures
    return TrialRow(
        name=f"{trial.index}" + (" (own)" if trial.index == 0 else ""),
        configuration=", ".join(f"{key} {each}" for key, each in trial.configuration.items()),
        state=trial.state,
        detail=trial.detail,
        steps=steps,
        score=value,
        fid=fid,
        damage=damage,
        diversity=diversity,
        confirmed=number(None if trial.confirmed is None else trial.confirmed.score),
        seconds=seconds,
        best=trial.index == best,
    )
