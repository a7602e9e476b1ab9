"""The catalogue follows a real registry: aliases as reviewers move them, and versions that cannot be served."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.registry import promote, retire
from corrector.registry.traffic import MODE, SHARE, set_traffic
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.snapshot import Traffic
from tests.support.served_registry import NAME, RegistryOf
from tests.support.waiting import wait_until
from tests.unit.serving.catalogue.conftest import Clock
from tests.world.scenes import Scene

Start = Callable[[], Catalogue]


def champion(catalogue: Catalogue) -> str | None:
    """The number of the version that is served of NAME, after a look."""
    adapter = catalogue.look().adapters.get(NAME)
    return None if adapter is None else adapter.champion.identity.version


def test_only_champions_are_served_with_their_prompts(registry: RegistryOf, catalogue: Catalogue) -> None:
    number = registry.add(1)
    assert catalogue.look().adapters == {}
    promote(NAME, number, who="rosa", **registry.place)
    (adapter,) = catalogue.look().adapters.values()
    assert adapter.name == NAME
    assert adapter.prompt == "a person lying on the grass"
    assert len(adapter.paraphrases) == 3
    assert adapter.guard_prompts == ("a person standing on the grass", "a person running on the grass")
    assert adapter.champion.identity.version == number
    version = registry.client.get_model_version(NAME, number)
    assert adapter.champion.identity.sha256 == version.tags["adapter_sha256"]
    assert adapter.traffic == Traffic("live", 0.0)


def test_a_snapshot_is_new_only_where_something_changed(registry: RegistryOf, catalogue: Catalogue) -> None:
    registry.crown(registry.add(1))
    first = catalogue.look()
    assert catalogue.look() is first
    registry.crown(registry.add(2))
    assert catalogue.look().number == first.number + 1


def test_a_moved_alias_and_a_retired_champion_are_followed(
    registry: RegistryOf, catalogue: Catalogue
) -> None:
    one, two = registry.add(1), registry.add(2)
    promote(NAME, one, who="rosa", **registry.place)
    assert champion(catalogue) == one
    registry.crown(two)
    assert champion(catalogue) == two
    registry.crown(one)
    assert champion(catalogue) == one
    retire(NAME, who="rosa", why="blurs faces", **registry.place)
    assert champion(catalogue) is None


def test_who_gets_what_is_set_with_tags(registry: RegistryOf, catalogue: Catalogue) -> None:
    registry.crown(registry.add(1))
    set_traffic(NAME, challenger=registry.add(2), challenger_share=0.25, **registry.place)
    adapter = catalogue.look().adapters[NAME]
    assert adapter.challenger is not None and adapter.challenger.identity.version == "2"
    assert adapter.traffic == Traffic("live", 0.25)
    registry.client.set_registered_model_tag(NAME, MODE, "shadow")
    set_traffic(NAME, challenger="none", **registry.place)
    adapter = catalogue.look().adapters[NAME]
    assert (adapter.challenger, adapter.traffic.mode) == (None, "shadow")


def test_a_mistyped_tag_changes_nothing_of_what_is_served_and_holds_a_new_adapter_back(
    registry: RegistryOf, start: Start, tmp_path: Path
) -> None:
    registry.crown(registry.add(1))
    catalogue = start()
    assert catalogue.look().adapters[NAME].traffic.mode == "live"
    for tag, value in ((MODE, "shadwo"), (SHARE, "ten percent"), (SHARE, "nan")):
        registry.client.set_registered_model_tag(NAME, tag, value)
        assert catalogue.look().adapters[NAME].traffic == Traffic("live", 0.0)
        assert value in catalogue.health.refused[NAME]
        (tmp_path / "snapshot.json").unlink(missing_ok=True)
        assert start().look().adapters[NAME].traffic.mode == "shadow"
        registry.client.delete_registered_model_tag(NAME, tag)
        catalogue.look()
        assert catalogue.health.refused == {}


def test_the_previous_champion_is_served_on_where_the_new_one_is_damaged(
    registry: RegistryOf, catalogue: Catalogue, clock: Clock
) -> None:
    one, two = registry.add(1), registry.add(2)
    registry.crown(one)
    assert champion(catalogue) == one
    (weights,) = registry.root.rglob(f"{_run(registry, two)}/**/pytorch_lora_weights.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    registry.crown(two)
    assert champion(catalogue) == one
    assert "SHA-256" in catalogue.health.refused[f"{NAME}@2"]
    weights.write_bytes(whole)
    assert champion(catalogue) == one, "it is not asked for again at once"
    clock.now += 11
    assert champion(catalogue) == two
    assert catalogue.health.refused == {}


def test_what_no_engine_could_draw_with_is_refused(registry: RegistryOf, catalogue: Catalogue) -> None:
    registry.crown(registry.add(1))
    catalogue.look()
    for number, reason in (
        (registry.add(2, rank=16), "at most rank 8"),
        (registry.add(3, base_revision="b" * 64), "for the base embedded at revision bbb"),
    ):
        registry.crown(number)
        assert champion(catalogue) == "1"
        assert reason in catalogue.health.refused[f"{NAME}@{number}"]
        assert catalogue.health.ok


def test_an_alias_of_a_deleted_version_serves_what_was_served(
    registry: RegistryOf, catalogue: Catalogue
) -> None:
    registry.crown(registry.add(1))
    two = registry.add(2)
    assert champion(catalogue) == "1"
    registry.client.delete_model_version(NAME, two)
    with pytest.raises(Exception, match="not found"):
        registry.crown(two)
    registry.client.delete_model_version(NAME, "1")
    assert champion(catalogue) in ("1", None)  # MLflow takes the alias with the version


def test_a_name_that_was_deleted_and_registered_again_is_another_adapter(
    registry: RegistryOf, catalogue: Catalogue
) -> None:
    registry.crown(registry.add(1))
    before = catalogue.look().adapters[NAME].champion.identity
    registry.client.delete_registered_model(NAME)
    registry.crown(registry.add(2))
    after = catalogue.look().adapters[NAME].champion.identity
    assert after.version == before.version == "1"
    assert after.sha256 != before.sha256


def test_while_the_registry_is_gone_everything_is_served_on_also_by_the_next_start(
    registry: RegistryOf, start: Start, clock: Clock
) -> None:
    registry.crown(registry.add(1))
    catalogue = start()
    known = catalogue.look()
    assert catalogue.health.ok
    database = registry.root / "mlflow.db"
    whole = database.read_bytes()
    database.write_bytes(b"not a database" * 1000)
    clock.now += 60
    assert catalogue.look() is known
    health = catalogue.health
    assert not health.ok and health.error
    assert health.age_seconds == 60
    restarted = start()
    assert restarted.look().adapters == known.adapters
    assert not restarted.health.ok and restarted.health.age_seconds is None
    database.write_bytes(whole)
    assert restarted.look().adapters == known.adapters
    assert restarted.health.ok


def test_before_anything_was_registered_nothing_is_served_and_it_says_why(
    start: Start, registry: RegistryOf
) -> None:
    shutil.rmtree(registry.root)
    catalogue = start()
    assert catalogue.look().adapters == {}
    assert "no registry here" in str(catalogue.health.error)


def test_a_damaged_saved_snapshot_is_no_snapshot(start: Start, tmp_path: Path) -> None:
    (tmp_path / "snapshot.json").write_text('{"lying": ')
    assert start().snapshot.adapters == {}


def test_a_candidate_can_be_asked_for_before_it_is_approved(
    registry: RegistryOf, catalogue: Catalogue
) -> None:
    number = registry.add(1)
    assert catalogue.find(NAME, number).version == number
    assert catalogue.find(NAME, "candidate").version == number
    registry.add(2, rank=16)
    for name, version in ((NAME, "7"), (NAME, "best"), ("../x", "1"), ("nobody", "1"), (NAME, "2")):
        with pytest.raises(UserError):
            catalogue.find(name, version)


def test_a_reviewers_change_is_followed_without_being_asked(
    registry: RegistryOf, catalogue: Catalogue
) -> None:
    one, two = registry.add(1), registry.add(2)
    registry.crown(one)
    catalogue.look()
    catalogue.follow()
    registry.crown(two)
    wait_until(lambda: catalogue.snapshot.adapters[NAME].champion.identity.version == two)


def test_many_adapters_are_admitted_at_once(registry: RegistryOf, catalogue: Catalogue) -> None:
    scenes = [Scene(subject, "lying", "grass") for subject in ("person", "robot", "dog", "cat")]
    names = [scene.subject for scene in scenes]
    for seed, (scene, name) in enumerate(zip(scenes, names, strict=True)):
        registry.crown(registry.add(seed, scene, name=name, work_id=name), name=name)
    assert sorted(catalogue.look().adapters) == sorted(names)


def _run(registry: RegistryOf, number: str) -> str:
    return str(registry.client.get_model_version(NAME, number).run_id)
