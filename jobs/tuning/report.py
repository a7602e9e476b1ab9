"""The results of a search: lines and a table on the terminal, `search.json`, and `best.yaml` for `jobs.correct`."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corrector.evaluation.trial_score import Choice
from corrector.files import write_atomically
from corrector.prompts.search_settings import Configuration
from corrector.record.search_results import (
    PromptSearchResult,
    RungReport,
    SearchResult,
    TrialResult,
)
from jobs.inputs.batch import BatchWork
from jobs.inputs.batch_text import sections_of, values_of
from jobs.lanes.queue import Progress
from jobs.log_context import log_context, logs_json
from jobs.tuning.plan import PromptSearch

logger = logging.getLogger(__name__)

BEST_FILE = "best.yaml"
RESULT_FILE = "search.json"
REPORT_FILE = "search.html"


class SearchLog:
    """Prints a line for every score of a trial and for every trial that ends early."""

    def __init__(self, searches: Sequence[PromptSearch], console: Console) -> None:
        self._searches = {each.search_id[:16]: each for each in searches}
        self._width = max(len(each.entry.name) for each in searches)
        self._console = console
        self._started = time.monotonic()
        self.printed: Counter[str] = Counter()
        """The number of scores that were printed, by work id."""
        self._ended: set[str] = set()

    def update(self, snapshot: Sequence[Progress], scores: Mapping[str, Sequence[RungReport]]) -> None:
        """Print what is new: `scores` are those of each trial after the first `printed`."""
        for each in snapshot:
            key, _, number = each.work_id.rpartition("-")
            search, index = self._searches[key], int(number)
            new = scores.get(each.work_id, ())
            if new:
                configuration = search.trial_folder(index).configuration or {}
                for report in new:
                    self._line(search.entry.name, index, _score(report), configuration)
                self.printed[each.work_id] += len(new)
            if each.state in ("failed", "stopped") and each.work_id not in self._ended:
                self._ended.add(each.work_id)
                self._line(search.entry.name, index, f"{each.state} {each.detail}", {})

    def _line(self, name: str, index: int, what: str, configuration: Configuration) -> None:
        seconds = time.monotonic() - self._started
        varied = describe(configuration)
        if logs_json():
            with log_context(prompt=name, adapter=name, trial=index):
                logger.info("%s", f"{name}: trial {index:03d} {what}  {varied}".rstrip())
            return
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


def read_trial(search: PromptSearch, index: int, configuration: Configuration) -> TrialResult:
    """One trial, from its journal."""
    folder, own = search.trial_folder(index), search.rungs_of(index)
    reports, outcome = folder.reports, folder.outcome
    values: dict[str, Any] = {"state": "unfinished"}
    if outcome is not None:
        values = {"state": outcome.state, "detail": outcome.detail}
    elif len(reports) >= own:
        values = {"state": "finished"}
    return TrialResult(
        index=index,
        configuration=configuration,
        reports=tuple(reports[:own]),
        confirmed=reports[own].score if len(reports) > own else None,
        **values,
    )


def read_prompt(search: PromptSearch, choice: Choice | None = None) -> PromptSearchResult:
    """The result of one prompt so far, from its trials' journals."""
    chosen = {} if choice is None else vars(choice) | {"best": int(choice.trial)}
    chosen.pop("trial", None)
    return PromptSearchResult(
        name=search.entry.name,
        prompt=search.entry.prompt,
        search_id=search.search_id,
        trials=tuple(
            read_trial(search, index, configuration)
            for index, configuration in enumerate(search.configurations())
        ),
        **chosen,
    )


def write_best_batch(work: BatchWork, chosen: dict[str, Configuration]) -> Path:
    """Store a batch file with the prompts of `chosen` and their hyper-parameters; returns a copy that this node can read.

    Paths of exemplars are relative to the new file, or, where it is on S3, to the folder of the original batch file.
    """
    file, original = work.run.place.file(BEST_FILE), work.batch.path
    if not work.run.storage.is_on_s3:
        file.write(_best_batch(work, chosen, file.path.parent, os.path.relpath(file.path)))
        return file.path
    file.write(_best_batch(work, chosen, original.resolve().parent, f"{BEST_FILE}, beside {original.name}"))
    copy = file.path.with_name(f"here-{BEST_FILE}")
    return write_atomically(copy, _best_batch(work, chosen, copy.parent, str(copy)))


def _best_batch(work: BatchWork, chosen: dict[str, Configuration], folder: Path, name: str) -> str:
    """The text of the batch file; paths of exemplars are relative to `folder`.

    Entries have the hyper-parameters that were searched even where they have the default value.
    """
    batch = work.batch
    prompts = [
        values_of(entry, batch, folder) | chosen[entry.name]
        for entry in batch.prompts
        if entry.name in chosen
    ]
    content = {**sections_of(batch, work.spec.reference), "prompts": prompts}
    head = (
        f"# The best of {batch.path.name} by search. From the folder that the search was run in:\n"
        f"#     python -m jobs.correct {name}\n"
    )
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return head + text
