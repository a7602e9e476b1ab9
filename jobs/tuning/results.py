"""The results of a search in the run's folder: `search.json`, the page, and `best.yaml` for `jobs.correct`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from corrector.evaluation.objective import Choice
from corrector.prompts import FailingPrompt
from corrector.prompts.search import Configuration
from corrector.record.search import PromptSearchResult, TrialResult
from jobs.inputs.batch import BatchWork
from jobs.tuning.plan import PromptSearch

BEST_FILE = "best.yaml"
RESULT_FILE = "search.json"
REPORT_FILE = "search.html"


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
    """Write the batch with the `chosen` hyper-parameters, by prompt, into the run's folder; prompts without are left out.

    Exemplars are named relative to the new file, so that it can be run from where the search was.
    """
    batch, path = work.batch, work.run.path / BEST_FILE
    prompts = [
        _entry(entry, chosen[entry.name], str(batch.exemplar_folder(entry)), path.parent)
        for entry in batch.prompts
        if entry.name in chosen
    ]
    content: dict[str, Any] = {"base": work.spec.reference}
    for name, section in (("evaluation", batch.evaluation), ("gate", batch.gate)):
        if changed := section.model_dump(mode="json", exclude_defaults=True):
            content[name] = changed
    content["prompts"] = prompts
    head = (
        f"# The best of {batch.path.name} by search. From the folder that the search was run in:\n"
        f"#     python -m jobs.correct {os.path.relpath(path)}\n"
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(
        head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8"
    )
    return partial.replace(path)


def _entry(
    entry: FailingPrompt, configuration: Configuration, exemplars: str, folder: Path
) -> dict[str, Any]:
    """An entry of the batch file; what was searched is written even where it is the default."""
    values = entry.model_dump(mode="json", exclude={"hyperparameters"}, exclude_defaults=True)
    values |= {"name": entry.name, "exemplars": os.path.relpath(exemplars, folder)}
    return values | entry.hyperparameters.model_dump(mode="json", exclude_defaults=True) | configuration
