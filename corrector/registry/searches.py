"""Logs searches in MLflow: a run for each prompt, with a child run for each trial.

The parameters of a child run are the varied hyper-parameters. Its metrics are score, FID and others by optimiser
step. When a search is logged again after an interruption, missing trials are added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from corrector.prompts.search_settings import Configuration
from corrector.record.search_results import PromptSearchResult, SearchResult, TrialResult
from corrector.registry.store import Store, open_store, registry_exists
from corrector.registry.tags import cut

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

EXPERIMENT = "searches"

_SEARCH_ID = "search_id"
_TRIAL = "trial"
_PARENT = "mlflow.parentRunId"
_CONFIGURATION = "configuration"
_BEST_SCORE = "best_score"
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def log_search(result: SearchResult, *, tracking_uri: str | None, root: Path, ended: bool = True) -> None:
    """Log every prompt of a search, with the trials that have ended.

    Args:
        ended: Whether the search has ended; until then the runs of its prompts stay open.

    Raises:
        RegistryError: MLflow failed.
    """
    with open_store(tracking_uri, root, writing=True) as store:
        experiment = store.experiment(EXPERIMENT)
        for prompt in result.prompts:
            parent = _parent(store, experiment, result, prompt)
            known = {
                run.data.tags.get(_TRIAL): run
                for run in store.all_runs([experiment], f"tags.`{_PARENT}` = '{parent}'")
            }
            for trial in prompt.trials:
                if trial.state not in _STATUS:
                    continue
                run = known.get(str(trial.index)) or _begin(store, experiment, parent, result, prompt, trial)
                if run.info.status == "RUNNING":  # also after a job was killed at this point
                    _log_trial(store, run, trial)
                else:
                    _log_confirmation(store, run, trial)
            if ended:
                _conclude(store, parent, prompt)


def known_good(
    base_revision: str, *, but: Sequence[str], count: int, tracking_uri: str | None, root: Path
) -> list[Configuration]:
    """The configurations that earlier searches on the same base chose, the lowest score on fresh seeds first.

    Scores are shares of the base's distance, so the scores of different prompts are comparable.

    Args:
        but: Searches (`search_id`) to leave out: the caller's own.
        count: Maximum number of configurations, all different.

    Raises:
        RegistryError: MLflow failed.
    """
    if not registry_exists(tracking_uri, root):
        return []
    with open_store(tracking_uri, root, writing=False) as store:
        experiment = store.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        condition = f"tags.base_revision = '{base_revision}' and tags.kind = 'search'"
        found = [
            run
            for run in store.all_runs([experiment.experiment_id], condition)
            if run.data.tags.get(_SEARCH_ID) not in but and _BEST_SCORE in run.data.metrics
        ]
    found.sort(key=lambda run: float(run.data.metrics[_BEST_SCORE]))
    configurations: list[Configuration] = []
    for run in found:
        configuration = json.loads(run.data.tags[_CONFIGURATION])
        if configuration not in configurations:
            configurations.append(configuration)
    return configurations[:count]


def _parent(store: Store, experiment: str, result: SearchResult, prompt: PromptSearchResult) -> str:
    condition = f"tags.{_SEARCH_ID} = '{prompt.search_id}' and tags.kind = 'search'"
    for run in store.all_runs([experiment], condition):
        return str(run.info.run_id)
    tags = {
        "kind": "search",
        _SEARCH_ID: prompt.search_id,
        "prompt": cut(prompt.prompt),
        "base_name": result.base,
        "base_revision": result.base_revision,
        "objective": result.objective,
        "extractor": result.extractor,
        "run": result.run,
    }
    return str(store.client.create_run(experiment, tags=tags, run_name=prompt.name).info.run_id)


def _begin(
    store: Store,
    experiment: str,
    parent: str,
    result: SearchResult,
    prompt: PromptSearchResult,
    trial: TrialResult,
) -> Run:
    tags = {
        _PARENT: parent, "kind": "trial", _TRIAL: str(trial.index), "state": trial.state,
        "prompt": cut(prompt.prompt), "base_revision": result.base_revision,
    }  # fmt: skip
    if trial.detail:
        tags["detail"] = cut(trial.detail)
    return store.client.create_run(experiment, tags=tags, run_name=f"{prompt.name}-{trial.index:03d}")


def _log_trial(store: Store, run: Run, trial: TrialResult) -> None:
    from mlflow.entities import Param

    parameters = [Param(key, str(value)) for key, value in trial.configuration.items()]
    store.client.log_batch(run.info.run_id, params=parameters, metrics=list(_metrics(trial)))
    store.client.set_terminated(run.info.run_id, status=_STATUS[trial.state])


def _log_confirmation(store: Store, run: Run, trial: TrialResult) -> None:
    """Add a trial's score on fresh seeds to its run, which was logged without it."""
    metrics = [each for each in _confirmation(trial) if each.key not in run.data.metrics]
    if metrics:
        store.client.log_batch(run.info.run_id, metrics=metrics)


def _metrics(trial: TrialResult) -> Iterator[Metric]:
    from mlflow.entities import Metric

    at = _now()
    for report in trial.reports:
        for name, value in report.metrics.items():
            yield Metric(name, float(value), at, report.steps)
    yield from _confirmation(trial)


def _confirmation(trial: TrialResult) -> Iterator[Metric]:
    from mlflow.entities import Metric

    if trial.confirmed is not None:
        for name, value in trial.confirmed.model_dump().items():
            yield Metric(f"confirmed_{name}", float(value), _now(), trial.reports[-1].steps)


def _now() -> int:
    """Milliseconds since 1970, MLflow's unit."""
    return round(1000 * datetime.now(UTC).timestamp())


def _conclude(store: Store, parent: str, prompt: PromptSearchResult) -> None:
    """Write the choice into the prompt's run, and close it."""
    client, chosen = store.client, prompt.chosen
    client.set_tag(parent, "mlflow.note.content", cut(prompt.reason or "no trial came to its end"))
    if chosen is not None and chosen.confirmed is not None:
        client.set_tag(parent, _CONFIGURATION, json.dumps(chosen.configuration))
        client.set_tag(parent, "best", str(chosen.index))
        client.log_metric(parent, _BEST_SCORE, chosen.confirmed.score)
        client.log_metric(parent, "best_fid", chosen.confirmed.fid)
    if prompt.difference is not None and prompt.interval is not None:
        client.log_metric(parent, "fid_difference", prompt.difference)
        client.log_metric(parent, "fid_difference_low", prompt.interval[0])
        client.log_metric(parent, "fid_difference_high", prompt.interval[1])
    client.log_metric(parent, "trials", float(len(prompt.trials)))
    client.set_terminated(parent, status="FINISHED")
