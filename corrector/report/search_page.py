"""The report of a search: one self-contained HTML file with the trials of each prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corrector.evaluation.scorecard_figures import Interval, number
from corrector.prompts import HyperParameters
from corrector.record.search_results import PromptSearchResult, SearchResult, TrialResult
from corrector.report.page import write_page
from corrector.report.plots import interval_rows
from corrector.report.search_plots import heat_map, importances, parallel_plot, pareto_plot


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
    views = [_view(prompt, own[prompt.name]) for prompt in result.prompts]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_page(path, "search.html.jinja", title=f"Search: {result.run}", facts=facts, views=views)


def _view(prompt: PromptSearchResult, own: HyperParameters) -> dict[str, Any]:
    difference = []
    if prompt.difference is not None and prompt.interval is not None and prompt.best != 0:
        low, high = prompt.interval
        label = "FID against the prompt's own configuration, on fresh seeds"
        difference = [(label, Interval(low=low, value=prompt.difference, high=high))]
    return {
        "prompt": prompt.prompt,
        "reason": prompt.reason or "No trial came to its end.",
        "difference": interval_rows(difference),
        "heat": heat_map(prompt.trials, own.rank, own.learning_rate),
        "pareto": pareto_plot(prompt.trials, prompt.best),
        "parallel": parallel_plot(prompt.trials, prompt.best),
        "importances": importances(prompt.trials),
        "best": prompt.best,
        "trials": [(trial, _figures(trial)) for trial in sorted(prompt.trials, key=_order)],
    }


def _order(trial: TrialResult) -> tuple[float, int, float]:
    """A sort key: confirmed trials first, then by the number of steps."""
    confirmed = float("inf") if trial.confirmed is None else trial.confirmed.score
    steps = trial.reports[-1].steps if trial.reports else 0
    return confirmed, -steps, float("inf") if trial.score is None else trial.score


def _figures(trial: TrialResult) -> list[str]:
    """A trial's figures as texts: steps, score, FID, damage, diversity, score on fresh seeds, seconds."""
    confirmed = number(None if trial.confirmed is None else trial.confirmed.score)
    if not trial.reports:
        return [*["–"] * 5, confirmed, "–"]
    last = trial.reports[-1]
    score = last.score
    texts = [
        str(last.steps),
        number(score.score),
        number(score.fid),
        f"{score.damage:.0%}",
        number(score.diversity),
    ]
    return [*texts, confirmed, number(last.seconds)]
