"""An archive from anyone: its images are used, or it is refused with the reason, and nothing of it stays."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.exemplars import load_exemplars
from corrector.exemplars.files import Limits, UnreadableFileError
from corrector.exemplars.sources import SourceLimits, load_source, resolve_source
from corrector.exemplars.sources.archives import archive_entries
from corrector.exemplars.sources.limits import UnusableSourceError
from corrector.settings import Settings
from tests.support.archives import PICTURES, special, tarred, zipped
from tests.support.pictures import content, drawn
from tests.support.small_disk import SmallDisk

SMALL = SourceLimits(
    entries=10,
    source_bytes=2**20,
    unpacked_bytes=2**21,
    ratio=10,
    small_bytes=2**16,
    files=Limits(file_bytes=2**17),
)
ZEROS = bytes(2**20)


@pytest.fixture
def environment(tmp_path: Path) -> Settings:
    return Settings(
        cache=tmp_path / "cache", storage=str(tmp_path / "runs"), tracking_uri=None, exemplar_roots=()
    )


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def unpacked(
    archive: bytes, folder: Path, environment: Settings, limits: SourceLimits = SMALL, name: str = "lying.zip"
) -> dict[str, bytes]:
    """The images that an archive becomes."""
    (folder / name).write_bytes(archive)
    found = resolve_source(name, folder, settings=environment, limits=limits)
    return {path.name: path.read_bytes() for path in found.folder.iterdir()}


def refusal(archive: bytes, folder: Path, environment: Settings, limits: SourceLimits = SMALL) -> str:
    """Why an archive is refused; nothing of it is left."""
    with pytest.raises(UserError) as raised:
        unpacked(archive, folder, environment, limits)
    assert files_in(environment.cache) == set()
    assert files_in(folder) == {"lying.zip"}
    start = 'exemplars: "lying.zip": '
    assert str(raised.value).startswith(start)
    return str(raised.value).removeprefix(start)


@pytest.mark.parametrize(
    "archive",
    [
        zipped(PICTURES),
        zipped(PICTURES, method=zipfile.ZIP_DEFLATED),
        tarred(PICTURES),
        tarred(PICTURES, form=tarfile.GNU_FORMAT),
        tarred(PICTURES, mode="w:gz"),
    ],
    ids=["zip", "deflated zip", "tar", "gnu tar", "tar.gz"],
)
def test_an_archive_is_the_folder_that_was_packed(
    archive: bytes, tmp_path: Path, environment: Settings
) -> None:
    assert unpacked(archive, tmp_path, environment) == PICTURES
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, body in PICTURES.items():
        (folder / name).write_bytes(body)
    here = load_source("lying.zip", tmp_path, resolution=32, settings=environment)
    there = load_exemplars(folder, resolution=32)
    assert here.digest == there.digest
    assert here.file_digests == there.file_digests
    assert here.notes == there.notes


def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path: Path, environment: Settings) -> None:
    unpacked(zipped(PICTURES), tmp_path, environment)
    first = resolve_source("lying.zip", tmp_path, settings=environment)
    (first.folder / "mark").touch()
    assert (resolve_source("lying.zip", tmp_path, settings=environment).folder / "mark").exists()
    assert unpacked(zipped({"7.png": content(drawn(number=7))}), tmp_path, environment).keys() == {"7.png"}


def test_folders_become_parts_of_names_and_what_is_no_image_is_noted(
    tmp_path: Path, environment: Settings
) -> None:
    files = {f"lying/good/{name}": body for name, body in PICTURES.items()} | {
        "lying/": b"",
        "lying/.DS_Store": b"x",
        "__MACOSX/lying/._1.png": b"x",
        "lying/more.zip": zipped({"7.png": content(drawn(number=7))}),
        "lying/empty.png": b"",
        "lying/film.png": bytes(2**17 + 1),
    }
    assert unpacked(zipped(files), tmp_path, environment, SourceLimits(files=SMALL.files)).keys() == {
        f"lying__good__{name}" for name in PICTURES
    }
    notes = resolve_source("lying.zip", tmp_path, settings=environment).notes
    assert notes == (
        "lying__empty.png: is empty (0 bytes); copy it again or remove it",
        "lying__film.png: is larger than 0.125 MiB; save it smaller",
        "not images, ignored: lying__more.zip",
    )
    loaded = load_source("lying.zip", tmp_path, resolution=32, settings=environment)
    assert loaded.notes[:3] == notes


@pytest.mark.parametrize(
    "name", ["../1.png", "a/../../1.png", "/etc/1.png", "..\\1.png", "C:\\1.png", "\\1.png"]
)
def test_names_that_lead_outside_are_refused(name: str, tmp_path: Path, environment: Settings) -> None:
    for archive in (zipped({**PICTURES, name: b"x"}), tarred({**PICTURES, name: b"x"})):
        assert "leads outside of it; pack the images again" in refusal(archive, tmp_path, environment)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path, environment: Settings) -> None:
    archive = tarred(PICTURES, special("9.png", kind, "0.png"))
    assert refusal(archive, tmp_path, environment) == (
        'its entry "9.png" is a link or a device, not a file; pack the image itself'
    )


def test_links_in_a_zip_are_refused(tmp_path: Path, environment: Settings) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("9.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "is a link or a device" in refusal(stream.getvalue(), tmp_path, environment)


@pytest.mark.parametrize(
    "bomb",
    [
        zipped({"1.bmp": ZEROS}, method=zipfile.ZIP_DEFLATED),
        zipped({f"{n}.bmp": ZEROS for n in range(4)}, method=zipfile.ZIP_DEFLATED),
        tarred({"1.bmp": ZEROS}, mode="w:gz"),
        tarred({"film": ZEROS}, mode="w:gz"),
        gzip.compress(tarred({}) + ZEROS),
    ],
    ids=["zip", "several", "tar.gz", "no image", "behind the end"],
)
def test_bombs_are_refused(bomb: bytes, tmp_path: Path, environment: Settings) -> None:
    assert "unpacks to more than 0.0625 MiB" in refusal(bomb, tmp_path, environment)


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path, environment: Settings) -> None:
    archive = zipped({"1.png": PICTURES["1.png"] + ZEROS}, method=zipfile.ZIP_DEFLATED)
    size, lie = len(PICTURES["1.png"] + ZEROS).to_bytes(4, "little"), (300).to_bytes(4, "little")
    assert "damaged" in refusal(archive.replace(size, lie), tmp_path, environment)


def test_many_entries_are_refused_before_they_are_read(tmp_path: Path, environment: Settings) -> None:
    many = {f"{number}.txt": b"" for number in range(11)}
    for archive in (zipped(many), tarred(many)):
        assert refusal(archive, tmp_path, environment) == (
            "holds more than 10 entries; keep only the best images in it"
        )


def test_a_directory_of_a_million_entries_is_not_read(tmp_path: Path) -> None:
    entry = zipped({"a": b""})
    start = entry.index(b"PK\x01\x02")
    directory = entry[start : entry.index(b"PK\x05\x06")] * 1_000_000
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + len(directory).to_bytes(4, "little")
    file = io.BytesIO(entry[:start] + directory + end + start.to_bytes(4, "little") + bytes(2))
    with pytest.raises(UnusableSourceError, match="holds more than 4096 entries"):
        list(archive_entries(file, SourceLimits()))


def test_a_tar_header_of_any_size_is_not_read(tmp_path: Path, environment: Settings) -> None:
    header = tarfile.TarInfo("0.png")
    header.pax_headers = {"comment": "x" * 10_000}
    assert "has a header of more than 8192 bytes" in refusal(tarred({}, header), tmp_path, environment)


def test_two_files_of_one_name_are_refused(tmp_path: Path, environment: Settings) -> None:
    picture = PICTURES["1.png"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("1.png", picture)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("1.png", PICTURES["2.png"])
    pairs = [("A.png", "a.png"), ("e\u0301.png", "\u00e9.png"), ("a/1.png", "a__1.png")]
    for packed in (stream.getvalue(), *(tarred(dict.fromkeys(pair, picture)) for pair in pairs)):
        assert "two of its files have the name" in refusal(packed, tmp_path, environment)


def test_names_in_any_encoding_become_names_that_every_disk_takes(
    tmp_path: Path, environment: Settings
) -> None:
    names = ["\udcff\udcfe.png", "a\nb.png", "\u202e1.png", "é.png", "x" * 300 + ".png"]
    bodies = [content(drawn(number=number)) for number in range(len(names))]
    archive = tarred(dict(zip(names, bodies, strict=True)), form=tarfile.GNU_FORMAT)
    found = unpacked(archive, tmp_path, environment)
    assert sorted(found.values()) == sorted(bodies)
    assert {"é.png", "a%nb.png", "%udcff%udcfe.png", "%u202e1.png"} < found.keys()
    assert all(name.isprintable() and len(name.encode()) <= 200 for name in found)


def test_an_encrypted_zip_is_refused(tmp_path: Path, environment: Settings) -> None:
    archive = bytearray(zipped({"1.png": PICTURES["1.png"]}))
    archive[archive.index(b"PK\x03\x04") + 6] |= 1
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(bytes(archive), tmp_path, environment) == "is encrypted; pack it again without a password"


def test_other_methods_of_packing_are_refused(tmp_path: Path, environment: Settings) -> None:
    archive = zipped(PICTURES, method=zipfile.ZIP_BZIP2)
    assert "is not packed by the usual method" in refusal(archive, tmp_path, environment)


@pytest.mark.parametrize(
    "archive",
    [zipped(PICTURES), tarred(PICTURES), tarred(PICTURES, mode="w:gz")],
    ids=["zip", "tar", "tar.gz"],
)
def test_a_truncated_archive_is_refused_wherever_it_is_cut(
    archive: bytes, tmp_path: Path, environment: Settings
) -> None:
    end = len(archive.rstrip(b"\0"))
    for part in range(1, 10):
        assert "; " in refusal(archive[: end * part // 10], tmp_path, environment)
    boundary = tarred(dict(list(PICTURES.items())[:3])).rstrip(b"\0")
    whole = boundary + bytes(-len(boundary) % 512)
    assert "is cut off or damaged" in refusal(whole, tmp_path, environment)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page and no archive"),
        (b"", "is empty (0 bytes)"),
        (b"Rar!\x1a\x07" + bytes(600), "is no archive by its content; expected .zip, .tar or .tar.gz"),
        (gzip.compress(b"no tar"), "is cut off or damaged"),
        (
            zipped({"a.txt": b"a"}),
            "no images in it; expected .png, .jpg or .webp\n  not images, ignored: a.txt",
        ),
    ],
)
def test_what_holds_no_images_is_refused(
    body: bytes, reason: str, tmp_path: Path, environment: Settings
) -> None:
    assert refusal(body, tmp_path, environment).startswith(reason)


def test_an_archive_over_the_size_is_not_opened(tmp_path: Path, environment: Settings) -> None:
    assert "is larger than 1 MiB" in refusal(bytes(2**20 + 1), tmp_path, environment)


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(
    kind=st.sampled_from([zipped(PICTURES), tarred(PICTURES), tarred(PICTURES, mode="w:gz")]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_archives_raise_nothing_else(kind: bytes, changes: list[tuple[int, int]]) -> None:
    archive = bytearray(kind)
    for position, value in changes:
        archive[position % len(archive)] = value
    with suppress(UnusableSourceError, UnreadableFileError):
        for _, read in archive_entries(io.BytesIO(bytes(archive)), SMALL):
            read()


def test_on_a_full_disk_nothing_stays(tmp_path: Path, environment: Settings) -> None:
    (tmp_path / "lying.zip").write_bytes(zipped({"1.bmp": content(drawn(300, 300), "BMP")}))
    environment.cache.mkdir()
    with SmallDisk(environment.cache, 2**20) as disk:
        disk.fill(leaving=2**16)
        with pytest.raises(UserError, match=r"lying.zip.*No space left on device.*set CORRECTOR_CACHE"):
            resolve_source("lying.zip", tmp_path, settings=environment)
        assert files_in(environment.cache) == {"filler"}


def test_processes_that_resolve_the_same_archive_share_one_folder(
    tmp_path: Path, environment: Settings
) -> None:
    (tmp_path / "lying.zip").write_bytes(zipped(PICTURES))
    context = multiprocessing.get_context("fork")
    start, folders = context.Barrier(2), context.SimpleQueue()

    def resolve() -> None:
        start.wait(60)
        folders.put(resolve_source("lying.zip", tmp_path, settings=environment).folder)

    running = [context.Process(target=resolve) for _ in range(2)]
    for process in running:
        process.start()
    found = {folders.get() for _ in running}
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    (folder,) = found
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == PICTURES
    assert list((environment.cache / "exemplars").iterdir()) == [folder.parent]
