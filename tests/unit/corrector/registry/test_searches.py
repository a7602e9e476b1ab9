"""A search in MLflow is a run for each prompt with one below it for each trial, and the next search begins with its best."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from corrector.record.search_results import SearchResult
from corrector.registry.local import local_uri
from corrector.registry.searches import EXPERIMENT, known_good, log_search
from tests.support.search_results import BASE_REVISION, search_result, trial


@pytest.fixture(scope="module")
def known(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local registry that knows two searches."""
    folder = Path(shutil.copytree(empty_registry, tmp_path_factory.mktemp("known") / "registry"))
    for result in (search_result(), search_result("dog", best=0.1)):
        log_search(result, tracking_uri=None, root=folder)
    return folder


def test_every_trial_is_a_child_run_with_its_configuration_and_its_scores_by_step(known: Path) -> None:
    client = MlflowClient(local_uri(known))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    (parent,) = (run for run in runs if run.info.run_name == "person")
    children = {
        run.info.run_name: run
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }

    assert sorted(children) == ["person-000", "person-001", "person-002", "person-003"]
    best = children["person-002"]
    assert best.data.params == {"rank": "16", "learning_rate": "0.004"}
    history = client.get_metric_history(best.info.run_id, "fid")
    assert [(point.step, point.value) for point in history] == [(10, 600), (30, 400), (90, 210)]
    assert best.data.metrics["confirmed_score"] == 0.2
    statuses = [children[name].info.status for name in sorted(children)]
    assert statuses == ["FINISHED", "KILLED", "FINISHED", "FAILED"]
    assert children["person-003"].data.tags["detail"] == "the loss became nan"
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["fid_difference_high"] == -40.0


def test_a_search_that_is_logged_again_adds_only_what_is_new(known: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(known, tmp_path / "registry"))
    result = search_result()
    longer = result.prompts[0].model_copy(
        update={"trials": (*result.prompts[0].trials, trial(4, {"rank": 2, "learning_rate": 1e-3}, 0.7))}
    )
    client = MlflowClient(local_uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    before = len(client.search_runs([experiment.experiment_id], max_results=100))

    log_search(result.model_copy(update={"prompts": (longer,)}), tracking_uri=None, root=root)

    assert len(client.search_runs([experiment.experiment_id], max_results=100)) == before + 1


def test_a_search_is_followed_while_it_runs_and_concluded_at_its_end(root: Path) -> None:
    def logged(result: SearchResult, *, ended: bool) -> tuple[Run, dict[str, Run]]:
        log_search(result, tracking_uri=None, root=root, ended=ended)
        client = MlflowClient(local_uri(root))
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        return runs.pop("person"), runs

    whole = search_result()
    trials = whole.prompts[0].trials
    running = tuple(
        each.model_copy(update={"confirmed": None} | ({} if each.index < 3 else {"state": "unfinished"}))
        for each in trials
    )
    update = {"best": None, "reason": "", "difference": None, "interval": None, "trials": running}
    part = whole.model_copy(update={"prompts": (whole.prompts[0].model_copy(update=update),)})

    parent, children = logged(part, ended=False)
    assert parent.info.status == "RUNNING"
    assert sorted(children) == ["person-000", "person-001", "person-002"]
    assert "confirmed_score" not in children["person-002"].data.metrics
    assert known_good(BASE_REVISION, but=(), count=3, tracking_uri=None, root=root) == []

    parent, children = logged(whole, ended=True)
    assert parent.info.status == "FINISHED"
    assert sorted(children) == ["person-000", "person-001", "person-002", "person-003"]
    assert children["person-002"].data.metrics["confirmed_score"] == 0.2


def test_a_trial_that_a_killed_job_had_only_begun_to_log_is_completed(root: Path) -> None:
    result = search_result()
    (prompt,) = result.prompts
    nothing = result.model_copy(update={"prompts": (prompt.model_copy(update={"trials": ()}),)})
    log_search(nothing, tracking_uri=None, root=root, ended=False)
    client = MlflowClient(local_uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id])
    begun = client.create_run(
        experiment.experiment_id, tags={"mlflow.parentRunId": parent.info.run_id, "trial": "2"}
    )

    log_search(result, tracking_uri=None, root=root)

    assert len(client.search_runs([experiment.experiment_id])) == 5
    completed = client.get_run(begun.info.run_id)
    assert completed.info.status == "FINISHED"
    assert completed.data.metrics["confirmed_score"] == 0.2


def test_what_earlier_searches_on_the_same_base_chose_is_known_best_first(known: Path) -> None:
    best = {"rank": 16, "learning_rate": 4e-3}

    assert known_good(BASE_REVISION, but=(), count=3, tracking_uri=None, root=known) == [best]
    assert (
        known_good(BASE_REVISION, but=["search-dog", "search-person"], count=3, tracking_uri=None, root=known)
        == []
    )
    assert known_good("other", but=(), count=3, tracking_uri=None, root=known) == []


def test_without_a_registry_nothing_is_known(tmp_path: Path) -> None:
    assert known_good(BASE_REVISION, but=(), count=3, tracking_uri=None, root=tmp_path) == []
