"""Reviewers who decide at the same moment: one champion, as the log's last entry says, with the predecessor it names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.registry import RegistryError, local_uri, promote, retire, rollback
from corrector.registry.review_log import Entry, append, history
from corrector.registry.store import open_store
from tests.support.racing import NOWHERE, check_settled
from tests.support.registering import NAME, Registering


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
    registered: Registering, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int, decision: str
) -> None:
    registered.all(1, 2, 3)
    shared = local_uri(root)
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


def test_a_reviewer_whose_clock_is_behind_still_comes_last(registered: Registering, root: Path) -> None:
    """The log is in the order of the decisions, whatever the machines' clocks say."""
    registered.all(1, 2)
    shared = local_uri(root)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with open_store(shared, NOWHERE, writing=True) as store:
        store.models.set_alias(NAME, "champion", "1")
        append(store, NAME, Entry(action="promoted", version="1", before=None, who="Bob", why="", when=ahead))
    assert promote(NAME, 2, who="Ada", tracking_uri=shared, root=NOWHERE).when > ahead
    check_settled(shared, NAME)
