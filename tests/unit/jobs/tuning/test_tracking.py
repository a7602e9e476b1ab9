"""MLflow while a search runs: told beside it, and missed by nobody where it is down."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from corrector.record.search_results import SearchResult
from corrector.registry import RegistryError
from corrector.registry.local import local_uri
from corrector.registry.searches import EXPERIMENT
from jobs.tuning import tracking as tracking_thread
from jobs.tuning.tracking import SearchTracking
from tests.support.search_results import search_result


def runs_of(root: Path) -> dict[str, Run]:
    client = MlflowClient(local_uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return {str(run.info.run_name): run for run in client.search_runs([experiment.experiment_id])}


def test_trials_are_in_mlflow_before_the_search_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = search_result()
    (prompt,) = whole.prompts
    begun = prompt.model_copy(update={"best": None, "trials": prompt.trials[:2]})
    part = whole.model_copy(update={"prompts": (begun,)})
    tracking = SearchTracking(lambda: part, tracking_uri=None, root=tmp_path)
    tracking.update()  # too early
    tracking.join()
    assert not (tmp_path / "mlflow.db").exists()

    monkeypatch.setattr(tracking_thread, "SECONDS", 0.0)
    tracking = SearchTracking(lambda: part, tracking_uri=None, root=tmp_path)
    tracking.update()
    tracking.join()
    runs = runs_of(tmp_path)
    assert sorted(runs) == ["person", "person-000", "person-001"]
    assert runs["person"].info.status == "RUNNING"

    tracking.finish(whole)
    runs = runs_of(tmp_path)
    assert len(runs) == 5
    assert runs["person"].info.status == "FINISHED"


def test_a_registry_that_is_down_is_told_of_once_and_again_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def down(result: SearchResult, **_: object) -> None:
        raise RegistryError("nobody answers")

    monkeypatch.setattr(tracking_thread, "SECONDS", 0.0)
    monkeypatch.setattr(tracking_thread, "log_search", down)
    tracking = SearchTracking(search_result, tracking_uri=None, root=tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tracking.update()
            tracking.join()
        assert len(caplog.records) == 1
        tracking.finish(search_result())
    assert [record.getMessage() for record in caplog.records] == [
        "the search is not in MLflow: nobody answers"
    ] * 2
