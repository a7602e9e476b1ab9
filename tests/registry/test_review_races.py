"""Reviewers who decide at the same moment: one champion, as the log's last entry says, with the predecessor it names."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from cluster.mlflow_server import MlflowServer
from corrector.registry import RegistryError, promote, register, retire, rollback
from corrector.registry.history import champions, history
from tests.mlflow_server import use
from tests.registry.conftest import NAME, PERSON
from tests.registry.racing import NOWHERE
from tests.registry.records import small_adapter, write_record

_ROUNDS = 6


def register_versions(uri: str, folder: Path, name: str, count: int) -> None:
    for number in range(1, count + 1):
        write_record(
            folder / str(number), PERSON, pairs=2, guard_images=1, steps=10, name=name,
            work_id=f"{name}-{number}", adapter=small_adapter(f"{name}{number}"),
        )  # fmt: skip
        register(folder / str(number), tracking_uri=uri, root=NOWHERE)


def check_settled(uri: str, name: str) -> None:
    """The aliases are where the log left them, and no move is missing in it."""
    log = history(name, tracking_uri=uri, root=NOWHERE)
    assert all(entry.recorded for entry in log)
    stack = champions(log)
    aliases = MlflowClient(uri, uri).get_registered_model(name).aliases
    pointed = {alias: str(aliases[alias]) for alias in ("champion", "previous") if alias in aliases}
    expected = dict(zip(("champion", "previous"), reversed(stack), strict=False))
    if log[-1].version is None:
        expected = {"previous": stack[-1]} if stack else {}
    assert pointed == expected


@pytest.mark.parametrize("decision", ["promote", "rollback", "retire"])
@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("set_registered_model_alias", 1),
        ("set_registered_model_alias", 2),
        ("set_registered_model_tag", 1),
    ],
)
def test_a_decision_in_the_middle_of_another_leaves_the_aliases_as_the_log_says(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int, decision: str
) -> None:
    register_versions(shared, tmp_path, NAME, 3)
    place: dict[str, Any] = {"tracking_uri": shared, "root": NOWHERE}
    for version in (1, 2):
        promote(NAME, version, who="Ada", **place)
    method: Callable[..., Any] = getattr(MlflowClient, step)
    calls = 0

    def interrupted(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            if decision == "promote":
                promote(NAME, 1, who="Bob", **place)
            else:
                {"rollback": rollback, "retire": retire}[decision](NAME, who="Bob", why="blurs", **place)
        return method(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, interrupted)
        try:
            promote(NAME, 3, who="Ada", **place)
            told = "done"
        except RegistryError as error:
            told = str(error)
    assert calls >= call
    check_settled(shared, NAME)
    log = history(NAME, **place)
    assert {entry.who for entry in log[2:]} >= {"Ada", "Bob"}
    assert told == "done" if log[-1].version == "3" else "at the same moment Bob decided otherwise" in told


def test_a_reviewer_whose_clock_is_behind_still_comes_last(shared: str, tmp_path: Path) -> None:
    """The log is in the order of the decisions, whatever the machines' clocks say."""
    from datetime import UTC, datetime, timedelta

    from corrector.registry.history import Entry, append
    from corrector.registry.store import open_store

    register_versions(shared, tmp_path, NAME, 2)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with open_store(shared, NOWHERE, writing=True) as store:
        store.set_alias(NAME, "champion", "1")
        append(store, NAME, Entry("promoted", "1", None, "Bob", "", ahead))
    assert promote(NAME, 2, who="Ada", tracking_uri=shared, root=NOWHERE).when > ahead
    check_settled(shared, NAME)


@pytest.mark.slow
def test_reviewers_at_the_server_race_and_settle(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(mlflow_server, monkeypatch)
    uri, name = mlflow_server.tracking_uri, "raced-for"
    register_versions(uri, tmp_path, name, 4)
    at_once = Barrier(4)

    def decide(version: int) -> str:
        at_once.wait()
        try:
            promote(name, version, who=f"reviewer {version}", why="a race", tracking_uri=uri, root=NOWHERE)
        except RegistryError as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(4) as pool:
        for _ in range(_ROUNDS):
            told = list(pool.map(decide, range(1, 5)))
            assert all(said == "done" or "at the same moment" in said for said in told)
            check_settled(uri, name)
