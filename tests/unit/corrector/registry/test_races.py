"""With the database as the only lock: another registration of the same work in the middle of one ends in one version."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from corrector.registry import RegisteredVersion, register
from corrector.registry.collect import collect
from tests.support.racing import NOWHERE, check_one_version_each
from tests.support.registering import write_work


@pytest.mark.parametrize("at", ["log_artifact", "create_model_version", "set_registered_model_alias"])
def test_whoever_comes_in_between_is_given_the_same_version(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Another registration of the same work runs as a whole, just before a step of the first."""
    write_work(tmp_path / "r", 1)
    method: Callable[..., object] = getattr(MlflowClient, at)
    others: list[RegisteredVersion] = []

    def interrupted(self: MlflowClient, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(MlflowClient, at, method)
        if not others:
            others.append(register(tmp_path / "r", tracking_uri=shared, root=NOWHERE))
        return method(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, at, interrupted)
    version = register(tmp_path / "r", tracking_uri=shared, root=NOWHERE)
    assert [version] == others
    check_one_version_each(shared, [tmp_path / "r"])
    assert collect(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []


def test_a_second_run_that_lost_is_removed_by_its_maker(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that looked for a run at the same moment saw none, and made one each."""
    write_work(tmp_path / "r", 1)
    create = MlflowClient.create_run
    others: list[RegisteredVersion] = []

    def interrupted(self: MlflowClient, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(MlflowClient, "create_run", create)
        others.append(register(tmp_path / "r", tracking_uri=shared, root=NOWHERE))
        return create(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "create_run", interrupted)
    assert [register(tmp_path / "r", tracking_uri=shared, root=NOWHERE)] == others
    client = MlflowClient(shared, shared)
    runs = client.search_runs([client.get_experiment_by_name("corrections").experiment_id])
    assert [run.info.run_id for run in runs] == [others[0].run_id]
    assert collect(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []
    check_one_version_each(shared, [tmp_path / "r"])
