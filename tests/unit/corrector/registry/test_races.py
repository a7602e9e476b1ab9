"""Somebody else does the same in the middle: one version, one candidate, one copy, and no error.

Registrations are raced with the database as the only lock, as on a server.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import (
    Reference,
    RegisteredVersion,
    RegistryError,
    export,
    fetch,
    promote,
    register,
    reject,
    retire,
)
from corrector.registry.garbage import collect_garbage
from corrector.registry.restore import find_works, restore_record
from corrector.registry.store import Store
from tests.support.racing import NOWHERE, check_one_version_each
from tests.support.registering import NAME, Registering, write_work


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
    assert collect_garbage(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []


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
    assert collect_garbage(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []
    check_one_version_each(shared, [tmp_path / "r"])


def test_a_version_that_is_rejected_while_it_is_registered_is_no_candidate(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_work(tmp_path / "r", 1)
    set_alias = MlflowClient.set_registered_model_alias

    def interrupted(self: MlflowClient, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", set_alias)
        reject(NAME, 1, who="Ada", why="third legs", tracking_uri=shared, root=NOWHERE)
        return set_alias(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", interrupted)
    assert register(tmp_path / "r", tracking_uri=shared, root=NOWHERE).aliases == ()


@pytest.mark.parametrize("decision", ["rejected", "retired"])
def test_a_resumed_registration_proposes_nothing_that_a_reviewer_decided_against(
    registered: Registering, root: Path, tmp_path: Path, client: MlflowClient, decision: str
) -> None:
    """The job that registered version 2 was killed before its last step; version 1 was not reviewed."""
    registered.all(1, 2)
    place: dict[str, Any] = {"tracking_uri": None, "root": root}
    if decision == "retired":
        promote(NAME, 2, who="Ada", **place)
        retire(NAME, who="Ada", why="third legs", **place)
    else:
        reject(NAME, 2, who="Ada", why="third legs", **place)
    client.delete_model_version_tag(NAME, "2", "registration")
    assert register(tmp_path / "record-2", **place).aliases == ()
    assert {alias: str(number) for alias, number in client.get_registered_model(NAME).aliases.items()} == {
        "candidate": "1"
    }


def test_a_resumed_registration_proposes_no_champion(
    registered: Registering, root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    registered.all(1, 2)
    place: dict[str, Any] = {"tracking_uri": None, "root": root}
    promote(NAME, 2, who="Ada", **place)
    client.delete_model_version_tag(NAME, "1", "registration")
    assert register(tmp_path / "record-1", **place).aliases == ()
    assert list(client.get_registered_model(NAME).aliases) == ["champion"]


def restore_again(destination: Path, place: dict[str, Any]) -> Path:
    return restore_record(find_works({"work-1": NAME}, **place)["work-1"], destination, **place)


@pytest.mark.parametrize("read", [lambda to, place: fetch(NAME, 1, to, **place), restore_again])
def test_two_that_read_the_same_version_at_once_both_have_it(
    registered: Registering,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Path, dict[str, Any]], Path],
) -> None:
    """The second reads as a whole in the middle of the first."""
    registered(1)
    place: dict[str, Any] = {"tracking_uri": None, "root": root}
    destination, file = tmp_path / "here", Store.file
    others: list[Path] = []

    def interrupted(self: Store, *arguments: Any, **options: Any) -> Path:
        monkeypatch.setattr(Store, "file", file)
        others.append(read(destination, place))
        return file(self, *arguments, **options)

    monkeypatch.setattr(Store, "file", interrupted)
    assert [read(destination, place)] == others
    assert len(list(destination.rglob(WEIGHTS_FILE))) == 1
    assert list(tmp_path.glob(".here*")) == []


def test_an_export_to_what_appears_meanwhile_is_refused_and_replaces_nothing(
    registered: Registering, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(1)
    file = Store.file
    reference = Reference(NAME, "1")

    def interrupted(self: Store, *arguments: Any, **options: Any) -> Path:
        monkeypatch.setattr(Store, "file", file)
        export(reference, tmp_path / "here", "diffusers", tracking_uri=None, root=root)
        return file(self, *arguments, **options)

    monkeypatch.setattr(Store, "file", interrupted)
    with pytest.raises(RegistryError, match="here: is there already; name a new one"):
        export(reference, tmp_path / "here", "diffusers", tracking_uri=None, root=root)
    assert (tmp_path / "here" / WEIGHTS_FILE).is_file()
