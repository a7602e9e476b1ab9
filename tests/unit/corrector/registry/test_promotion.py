"""A reviewer decides which version is the champion; each decision is recorded, and none is needed to be here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import RegistryError
from corrector.registry.local_models import LocalModels
from corrector.registry.promotion import promote, reject, retire, rollback
from corrector.registry.review_log import OUTSIDE, Entry, champions, history
from tests.support.registering import NAME, Registering


@pytest.fixture
def place(root: Path) -> dict[str, Any]:
    """Where the registry is, and who reviews."""
    return {"tracking_uri": None, "root": root, "who": "Ada"}


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(NAME).aliases.items()}


def told(root: Path) -> list[tuple[str, str | None, str | None]]:
    log = history(NAME, tracking_uri=None, root=root)
    return [(entry.action, entry.before, entry.version) for entry in log]


def test_the_candidate_becomes_the_champion(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    entry = promote(NAME, **place)
    assert (entry.action, entry.before, entry.version, entry.who) == ("promoted", None, "1", "Ada")
    assert aliases(client) == {"champion": "1"}
    assert history(NAME, tracking_uri=None, root=place["root"]) == [entry]
    tags = client.get_model_version(NAME, "1").tags
    assert (tags["review.decision"], tags["review.by"]) == ("promoted", "Ada")


def test_promoting_the_champion_again_changes_nothing(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    first = promote(NAME, **place)
    assert promote(NAME, 1, **(place | {"who": "Bob"})) == first
    assert told(place["root"]) == [("promoted", None, "1")]


def test_without_a_candidate_the_version_must_be_named(
    registered: Registering, place: dict[str, Any]
) -> None:
    registered(1, "rejected")
    with pytest.raises(RegistryError, match="candidate not found; it has version 1 and no alias"):
        promote(NAME, **place)


def test_the_gate_is_overridden_only_with_a_reason(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1, "rejected")
    with pytest.raises(RegistryError, match=r"gate did not pass it.*--why"):
        promote(NAME, 1, why="  ", **place)
    assert aliases(client) == {}
    assert promote(NAME, 1, why="the product needs it today", **place).overridden
    assert aliases(client) == {"champion": "1"}


def test_the_gate_is_asked_in_the_record_and_not_in_a_tag(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1, "rejected")
    client.set_model_version_tag(NAME, "1", "status", "corrected")
    client.set_model_version_tag(NAME, "1", "gate", "passed")
    with pytest.raises(RegistryError, match="gate did not pass it"):
        promote(NAME, 1, **place)


def test_damaged_bytes_are_not_promoted(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    (kept,) = place["root"].rglob(f"artifacts/**/{WEIGHTS_FILE}")
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    with pytest.raises(RegistryError, match="SHA-256"):
        promote(NAME, **place)
    assert aliases(client) == {"candidate": "1"}


def test_an_unfinished_registration_is_not_promoted(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    client.delete_model_version_tag(NAME, "1", "registration")
    with pytest.raises(RegistryError, match="has not ended"):
        promote(NAME, **place)


def test_rolling_back_goes_back_as_far_as_there_were_champions(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered.all(1, 2, 3)
    for version in (1, 2, 3):
        promote(NAME, version, **place)
    assert aliases(client) == {"champion": "3", "previous": "2"}
    entry = rollback(NAME, why="third legs", **place)
    assert (entry.before, entry.version) == ("3", "2")
    assert aliases(client) == {"champion": "2", "previous": "1"}
    assert client.get_model_version(NAME, "3").tags["review.decision"] == "rolled back"
    rollback(NAME, why="still", **place)
    assert aliases(client) == {"champion": "1"}
    with pytest.raises(RegistryError, match="no earlier champion"):
        rollback(NAME, why="and again", **place)
    with pytest.raises(RegistryError, match="rolled back by Ada: third legs"):
        promote(NAME, 3, **place)


def test_a_roll_back_passes_over_what_was_deleted_or_rejected(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered.all(1, 2, 3, 4)
    for version in (1, 2, 3, 4):
        promote(NAME, version, **place)
    client.delete_model_version(NAME, "3")
    reject(NAME, 2, why="licence of an exemplar", **place)
    assert rollback(NAME, why="third legs", **place).version == "1"
    assert aliases(client) == {"champion": "1"}


def test_a_rejected_version_is_no_candidate_and_needs_a_reason_to_return(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    with pytest.raises(RegistryError, match="--why"):
        reject(NAME, 1, why="", **place)
    reject(NAME, 1, why="<b>ugly</b>", **place)
    assert aliases(client) == {}
    with pytest.raises(RegistryError, match="rejected by Ada: <b>ugly</b>"):
        promote(NAME, 1, **place)
    assert promote(NAME, 1, why="looked again", **place).overridden


def test_the_champion_is_not_rejected(registered: Registering, place: dict[str, Any]) -> None:
    registered(1)
    promote(NAME, **place)
    with pytest.raises(RegistryError, match="roll back"):
        reject(NAME, 1, why="ugly", **place)


def test_the_only_champion_is_retired_and_none_follows(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    promote(NAME, **place)
    with pytest.raises(RegistryError, match=f"or retire {NAME}/1: its prompt is then served by the base"):
        rollback(NAME, why="third legs", **place)
    with pytest.raises(RegistryError, match="needs a reason"):
        retire(NAME, why=" ", **place)
    entry = retire(NAME, why="third legs", **place)
    assert (entry.action, entry.before, entry.version) == ("retired", "1", None)
    assert aliases(client) == {}
    assert told(place["root"]) == [("promoted", None, "1"), ("retired", "1", None)]
    assert client.get_model_version(NAME, "1").tags["review.decision"] == "retired"
    with pytest.raises(RegistryError, match="has no champion"):
        retire(NAME, why="again", **place)
    with pytest.raises(RegistryError, match="retired by Ada: third legs"):
        promote(NAME, 1, **place)


def test_a_roll_back_after_a_retirement_leads_to_the_champion_before(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered.all(1, 2)
    for version in (1, 2):
        promote(NAME, version, **place)
    retire(NAME, why="third legs", **place)
    assert aliases(client) == {"previous": "1"}
    assert rollback(NAME, why="that one was right", **place).version == "1"
    assert aliases(client) == {"champion": "1"}


def test_a_move_by_hand_is_as_valid_and_is_told(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered.all(1, 2, 3)
    promote(NAME, 1, **place)
    client.set_registered_model_alias(NAME, "champion", "2")
    last = history(NAME, tracking_uri=None, root=place["root"])[-1]
    assert (last.action, last.before, last.version, last.who) == ("moved", "1", "2", OUTSIDE)
    assert not last.recorded
    promote(NAME, 3, **place)
    assert told(place["root"]) == [("promoted", None, "1"), ("moved", "1", "2"), ("promoted", "2", "3")]
    assert rollback(NAME, why="third legs", **place).version == "2"


def test_a_crash_before_the_log_is_written_is_mended_by_the_same_command(
    registered: Registering, place: dict[str, Any], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call dies as a killed process would leave it."""

    class Killed(BaseException):
        pass

    def dying(*_: Any, **__: Any) -> None:
        raise Killed

    registered(1)
    with monkeypatch.context() as patch:
        patch.setattr(LocalModels, "set_tag", dying)
        with pytest.raises(Killed):
            promote(NAME, **place)
    assert aliases(client)["champion"] == "1"
    assert promote(NAME, 1, **place).who == "Ada"
    assert aliases(client) == {"champion": "1"}
    assert told(place["root"])[-1] == ("promoted", "1", "1")


def test_a_reader_sees_one_champion_at_every_step(
    registered: Registering, place: dict[str, Any], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def watching(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: LocalModels, *arguments: Any, **options: Any) -> Any:
            result = method(self, *arguments, **options)
            seen.append(aliases(client).get("champion"))
            return result

        return call

    registered.all(1, 2)
    promote(NAME, 1, **place)
    with monkeypatch.context() as patch:
        for step in ("set_alias", "delete_alias", "set_version_tag"):
            patch.setattr(LocalModels, step, watching(getattr(LocalModels, step)))
        promote(NAME, 2, **place)
        rollback(NAME, why="third legs", **place)
    changes = [champion for k, champion in enumerate(seen) if k == 0 or champion != seen[k - 1]]
    assert changes == ["1", "2", "1"]


def test_an_entry_that_somebody_defaced_is_left_out(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    promote(NAME, **place)
    client.set_registered_model_tag(NAME, "review.20260101T000000.000000Z.00000000", '{"action": "<script>"}')
    assert told(place["root"]) == [("promoted", None, "1")]


def test_a_reason_too_long_for_the_log_is_refused_before_anything_moves(
    registered: Registering, place: dict[str, Any], client: MlflowClient
) -> None:
    registered(1)
    with pytest.raises(RegistryError, match="2,001 characters"):
        promote(NAME, why="x" * 2001, **place)
    assert aliases(client) == {"candidate": "1"}


def test_names_that_climb_are_refused(place: dict[str, Any]) -> None:
    for name in ("../x", "a/b", "..", "a@b", "", "a\nb"):
        with pytest.raises(RegistryError, match="no name of a registered adapter"):
            rollback(name, why="x", **place)
    with pytest.raises(RegistryError, match="unheard-of: not found"):
        rollback("unheard-of", why="x", **place)


def test_champions_are_a_stack() -> None:
    from datetime import UTC, datetime

    def log(*steps: tuple[Any, str | None]) -> list[Entry]:
        return [
            Entry(action=action, version=version, before=None, who="", why="", when=datetime.now(UTC))
            for action, version in steps
        ]

    assert champions([]) == []
    promoted = log(("promoted", "1"), ("promoted", "2"), ("rejected", "9"), ("moved", "3"))
    assert champions(promoted) == ["1", "2", "3"]
    assert champions(promoted + log(("rolled back", "1"))) == ["1"]
    assert champions(promoted + log(("moved", None), ("promoted", "3"))) == ["1", "2", "3"]
