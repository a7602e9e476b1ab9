"""A piece of work that is registered comes back as the record folder that it was registered from, or not at all."""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
from mlflow.tracking import MlflowClient

from corrector.record.archive import ARCHIVE_FILE, pack_images, unpack_images
from corrector.record.correction_record import WEIGHTS_FILE, CorrectionRecord, RecordError
from corrector.registry import RegistryError, register
from corrector.registry.references import Reference
from corrector.registry.restore import RESTORED_FILE, find_works, restore_images, restore_record
from tests.support.records import write_record
from tests.support.registering import NAME, PERSON, Registering


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path, but for what only one of a written and a restored folder has."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RESTORED_FILE and path.suffix != ".sha256"
    }


def test_a_record_comes_back_as_it_was(registered: Registering, root: Path, tmp_path: Path) -> None:
    registered.all(1, (2, "rejected"))
    known = find_works(
        {"work-1": NAME, "work-2": NAME, "unheard-of": NAME, "work-3": "none"}, tracking_uri=None, root=root
    )
    assert {work: version.number for work, version in known.items()} == {"work-1": "1", "work-2": "2"}
    restored = restore_record(known["work-2"], tmp_path / "back", tracking_uri=None, root=root)
    assert contents(restored) == contents(tmp_path / "record-2")
    assert CorrectionRecord.load(restored).status == "rejected"
    assert register(restored, tracking_uri=None, root=root).version == "2"


def test_a_registration_under_way_is_not_found(
    registered: Registering, root: Path, client: MlflowClient
) -> None:
    registered(1)
    client.delete_model_version_tag(NAME, "1", "registration")
    assert find_works({"work-1": NAME}, tracking_uri=None, root=root) == {}


def test_where_nothing_was_registered_nothing_is_found_and_nothing_made(tmp_path: Path) -> None:
    assert find_works({"work-1": NAME}, tracking_uri=None, root=tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [f"model/adapter_weights/{WEIGHTS_FILE}", ARCHIVE_FILE])
def test_what_is_damaged_does_not_come_back_and_leaves_the_folder_as_it_was(
    registered: Registering, root: Path, tmp_path: Path, file: str
) -> None:
    version = registered(1)
    (root / "artifacts" / version.run_id / "artifacts" / file).write_bytes(b"half")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "kept").touch()
    known = find_works({"work-1": NAME}, tracking_uri=None, root=root)
    with pytest.raises((RegistryError, RecordError), match=r"SHA-256|not an archive"):
        restore_record(known["work-1"], tmp_path / "back", tracking_uri=None, root=root)
    assert [path.name for path in tmp_path.glob("*back*/*")] == ["kept"]


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("../images/before/000.png", ZIP_STORED),
        ("/images/before/000.png", ZIP_STORED),
        ("images/before/../../000.png", ZIP_STORED),
        ("images/before/000.py", ZIP_STORED),
        ("record.json", ZIP_STORED),
        ("images/before/000.png", ZIP_DEFLATED),
    ],
)
def test_an_archive_of_anything_else_is_not_unpacked(tmp_path: Path, name: str, compression: int) -> None:
    with ZipFile(tmp_path / "x.zip", "w", compression) as archive:
        archive.writestr("images/before/001.png", b"an image")
        archive.writestr(name, b"a" * 1000)
    with pytest.raises(RecordError, match="no image of a record; not unpacked"):
        unpack_images(tmp_path / "x.zip", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_equal_images_are_packed_into_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_record(tmp_path / name, PERSON, pairs=2, guard_images=1)
    packed = [pack_images(tmp_path / name, tmp_path / f"{name}.zip") for name in ("one", "other")]
    assert packed[0].read_bytes() == packed[1].read_bytes()


def test_images_of_a_version_come_without_its_adapter(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    registered(1)
    reference = Reference.parse(f"{NAME}/1")
    version, record = restore_images(reference, tmp_path / "images", tracking_uri=None, root=root)
    assert str(version) == f"{NAME}/1" and record == CorrectionRecord.load(tmp_path / "record-1")
    restored, registered_images = (
        CorrectionRecord.images(folder).after for folder in (tmp_path / "images", tmp_path / "record-1")
    )
    assert [path.read_bytes() for path in restored] == [path.read_bytes() for path in registered_images]
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"images"}
