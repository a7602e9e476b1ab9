"""`jobs.search --watch`: a table of the trials, refreshed from their journals in the run's folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from corrector.errors import UserError
from corrector.record.search_results import PromptSearchResult
from jobs.inputs.batch import BatchWork
from jobs.tuning.plan import prompt_searches
from jobs.tuning.report import RESULT_FILE, read_prompt, trials_table

SECONDS = 2.0
"""Seconds between two readings of the journals."""


def watch(work: BatchWork, console: Console) -> None:
    """Show the trials of a search until it has ended, or until Ctrl-C; without a terminal, show them once.

    Raises:
        UserError: The run's folder has no trial of this search.
    """
    searches = prompt_searches(work)
    results = [read_prompt(search) for search in searches]
    if not any(result.trials for result in results):
        raise UserError(
            f"{work.run.place.root}: no trials of this search here; is it the right --run-id and --storage?"
        )
    written = _written(work)
    ended = written is not None and all(
        trial.state != "unfinished" for each in results for trial in each.trials
    )
    if ended or not console.is_terminal:
        console.print(_view(results))
        return
    with Live(_view(results), console=console, auto_refresh=False) as live:
        try:
            while _written(work) == written:
                time.sleep(SECONDS)
                results = [read_prompt(search) for search in searches]
                live.update(_view(results), refresh=True)
        except KeyboardInterrupt:
            return


def _written(work: BatchWork) -> float | None:
    """When the search's result was stored, as this node knows it; None where it was not."""
    file = work.run.place.file(RESULT_FILE)
    return file.path.stat().st_mtime if file.fetch() else None


def _view(results: Sequence[PromptSearchResult]) -> Group:
    states = Counter(trial.state for result in results for trial in result.trials)
    told = ", ".join(
        f"{count} {'under way' if state == 'unfinished' else state}" for state, count in states.items()
    )
    tables = [trials_table(result) for result in results]
    return Group(*tables, Text(f"{sum(states.values())} trials: {told}"))
