"""The output of a search on the terminal: a line for every score, and a table of the trials at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corrector.prompts.search import Configuration
from corrector.record.search import (
    PromptSearchResult,
    RungReport,
    SearchResult,
    TrialResult,
)
from jobs.lanes.queue import Progress
from jobs.tuning.plan import PromptSearch


class SearchLog:
    """Prints a line for every score of a trial and for every trial that ends early."""

    def __init__(self, searches: Sequence[PromptSearch], console: Console) -> None:
        self._searches = {each.search_id[:16]: each for each in searches}
        self._width = max(len(each.entry.name) for each in searches)
        self._console = console
        self._started = time.monotonic()
        self._printed: dict[str, int] = {}
        self._ended: set[str] = set()

    def update(self, snapshot: Sequence[Progress]) -> None:
        """Print what is new; scores are read from the journals."""
        for each in snapshot:
            key, _, number = each.work_id.rpartition("-")
            search, index = self._searches[key], int(number)
            folder = search.trial_folder(index)
            reports = folder.reports if each.work_id not in self._ended else []
            for report in reports[self._printed.get(each.work_id, 0) :]:
                self._line(search.entry.name, index, _score(report), folder.configuration or {})
            self._printed[each.work_id] = max(len(reports), self._printed.get(each.work_id, 0))
            if each.state in ("failed", "stopped") and each.work_id not in self._ended:
                self._line(search.entry.name, index, f"{each.state} {each.detail}", {})
                self._ended.add(each.work_id)

    def _line(self, name: str, index: int, what: str, configuration: Configuration) -> None:
        seconds = time.monotonic() - self._started
        varied = describe(configuration)
        line = f"{seconds:7.1f}s  {name:<{self._width}}  {index:03d}  {what}  {varied}".rstrip()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(configuration: Configuration) -> str:
    """A configuration in a few words."""
    return "  ".join(
        f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"
        for key, value in configuration.items()
    )


def print_choices(result: SearchResult, console: Console) -> None:
    """The trials of every prompt, best first, and what was chosen."""
    for prompt in result.prompts:
        console.print(trials_table(prompt))
        console.print(f"{prompt.name}: {prompt.reason or 'no trial came to its end'}", markup=False)


def trials_table(prompt: PromptSearchResult) -> Table:
    """The trials of one prompt, best first."""
    table = Table(header_style="bold", title=escape(prompt.prompt))
    for column in ("trial", "configuration", "state"):
        table.add_column(column, overflow="fold")
    for column in ("steps", "score", "fid", "damage", "diversity", "fresh seeds", "seconds"):
        table.add_column(column, justify="right")
    for trial in sorted(prompt.trials, key=_order):
        name = f"{trial.index:03d}" + (" own" if trial.index == 0 else "")
        style = "bold green" if trial.index == prompt.best else None
        table.add_row(name, describe(trial.configuration), trial.state, *_figures(trial), style=style)
    return table


def _order(trial: TrialResult) -> tuple[float, float, float]:
    confirmed = trial.confirmed.score if trial.confirmed else float("inf")
    steps = trial.reports[-1].steps if trial.reports else 0
    return confirmed, -steps, trial.score if trial.score is not None else float("inf")


def _figures(trial: TrialResult) -> list[str]:
    if not trial.reports:
        return ["-"] * 7
    last = trial.reports[-1]
    return [
        str(last.steps),
        f"{last.score.score:.3f}",
        f"{last.score.fid:.0f}",
        f"{last.score.damage:.0%}",
        f"{last.score.diversity:.2f}",
        f"{trial.confirmed.score:.3f}" if trial.confirmed else "-",
        f"{last.seconds:.0f}",
    ]


def _score(report: RungReport) -> str:
    score = report.score
    return (
        f"step {report.steps:<5} score {score.score:.3f}  fid {score.fid:.0f} of {score.fid_base:.0f}  "
        f"damage {score.damage:.0%}  diversity {score.diversity:.2f}  n {score.n}"
    )
