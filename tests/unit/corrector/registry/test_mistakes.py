"""What cannot be right is refused in words, and leaves everything as it was."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from corrector.adapters import save_adapter
from corrector.files import file_sha256
from corrector.record.correction_record import CONFIG_FILE, WEIGHTS_FILE, CorrectionRecord
from corrector.registry import RegistryError, fetch, register
from corrector.registry.listing import find_version
from corrector.registry.references import Reference
from corrector.registry.store import open_store
from tests.support.records import small_adapter, write_record
from tests.support.registering import NAME, PERSON, Registering


def test_an_alias_of_a_deleted_version_is_told_from_one_that_never_was(
    registered: Registering, root: Path, client: MlflowClient
) -> None:
    registered.all(1, 2)
    client.set_registered_model_alias(NAME, "champion", "1")
    # MLflow takes the alias away with its version; an older one, or another program, may have left it.
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE version = 1")
    for reference, expected in [
        (f"{NAME}@champion", "points at version 1, which was deleted; it has version 2"),
        (NAME, "points at version 1, which was deleted"),
        (f"{NAME}@mine", "alias mine not found; it has version 2 and alias candidate, champion"),
        (f"{NAME}/1", "version 1 not found; it has version 2"),
        ("unheard-of/1", "unheard-of: not found"),
    ]:
        with pytest.raises(RegistryError, match=expected):
            find_version(Reference.parse(reference), tracking_uri=None, root=root)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "../x",
        "a/b",
        "a/1/2",
        "a@",
        "a/",
        "a@b@c",
        "a:1",
        "a\nb",
        "ü",
        ".hidden",
        "x" * 300,
        "a/../1",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(RegistryError, match="no name of a registered adapter"):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["a", "a/3", "a@champion", "a-person.lying_2/12"])
def test_a_reference_is_printed_as_it_was_written(text: str) -> None:
    assert str(Reference.parse(text)) == text


def test_an_adapter_of_another_base_than_its_record_is_not_registered(
    root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    adapter = replace(small_adapter("x"), base_revision="another")
    write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1, adapter=adapter)
    with pytest.raises(RegistryError, match="trained on the base revision another"):
        register(tmp_path / "r", tracking_uri=None, root=root)
    assert client.search_registered_models() == []


def test_an_adapter_is_fetched_only_for_its_own_base(
    registered: Registering, root: Path, client: MlflowClient, tmp_path: Path
) -> None:
    registered(1)
    own = client.get_model_version(NAME, "1").tags["base_revision"]
    with pytest.raises(RegistryError, match=f"is for the base embedded at revision {own}, not another"):
        fetch(NAME, 1, tmp_path / "here", tracking_uri=None, root=root, base_revision="another")
    assert not (tmp_path / "here").exists()
    assert fetch(NAME, 1, tmp_path / "here", tracking_uri=None, root=root, base_revision=own).is_dir()


def test_bytes_that_are_no_adapter_are_neither_registered_nor_fetched(
    root: Path, tmp_path: Path, registered: Registering, client: MlflowClient
) -> None:
    record = write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1)
    weights = tmp_path / "r" / "adapter" / WEIGHTS_FILE
    weights.with_name(f"{WEIGHTS_FILE}.sha256").unlink()
    weights.write_bytes(b"\x80\x04." * 100)  # a pickle begins like this
    changed = record.model_copy(update={"adapter_sha256": file_sha256(weights)})
    changed.save(tmp_path / "r")
    with pytest.raises(RegistryError, match="safetensors"):
        register(tmp_path / "r", tracking_uri=None, root=root)

    version = registered(1)
    kept = root / "artifacts" / version.run_id / "artifacts" / "model" / "adapter_weights" / WEIGHTS_FILE
    kept.write_bytes(weights.read_bytes())
    client.set_model_version_tag(NAME, "1", "adapter_sha256", file_sha256(weights))
    with pytest.raises(RegistryError, match="safetensors"):
        fetch(NAME, 1, tmp_path / "here", tracking_uri=None, root=root)
    assert not (tmp_path / "here").exists()


def test_a_half_written_artifact_is_refused(registered: Registering, root: Path, tmp_path: Path) -> None:
    version = registered(1)
    folder = root / "artifacts" / version.run_id / "artifacts" / "model" / "adapter_weights"
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(RegistryError, match=f"{CONFIG_FILE}: missing"):
        fetch(NAME, 1, tmp_path / "here", tracking_uri=None, root=root)
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RegistryError, match="SHA-256"):
        fetch(NAME, 1, tmp_path / "here", tracking_uri=None, root=root)
    assert list(tmp_path.glob("*here*")) == []


def test_an_artifact_larger_than_it_can_be_is_not_fetched(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    version = registered(1)
    with (
        pytest.raises(RegistryError, match=r"is more than it can have \(10\); not fetched"),
        open_store(None, root, writing=False) as store,
    ):
        store.file(version.run_id, "record.json", tmp_path, limit=10)


def test_a_record_that_was_swapped_is_noticed(
    registered: Registering, root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    from corrector.registry.promotion import promote

    first, second = registered.all((1, "rejected"), 2)
    place = root / "artifacts"
    passed = (place / second.run_id / "artifacts" / "record.json").read_bytes()
    (place / first.run_id / "artifacts" / "record.json").write_bytes(passed)
    with pytest.raises(RegistryError, match="was changed since it was registered"):
        promote(NAME, 1, who="Ada", tracking_uri=None, root=root)


def test_registered_bytes_stay_what_they_are_when_the_record_folder_changes(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    version = registered(1)
    folder = tmp_path / "record-1"
    save_adapter(small_adapter("others"), folder / "adapter")
    other = file_sha256(folder / "adapter" / WEIGHTS_FILE)
    CorrectionRecord.load(folder).model_copy(update={"adapter_sha256": other}).save(folder)
    with pytest.raises(RegistryError, match="a version never changes"):
        register(folder, tracking_uri=None, root=root)
    here = fetch(NAME, 1, tmp_path / "here", tracking_uri=None, root=root)
    assert file_sha256(here / WEIGHTS_FILE) == version.sha256
