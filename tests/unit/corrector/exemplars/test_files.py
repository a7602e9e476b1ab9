"""A folder from anyone: nothing outside it is read, and nothing in it costs more than its limit."""

import os
import socket
from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.exemplars import Limits, load_exemplars
from corrector.exemplars.files import NotAnImageError, UnreadableFileError, names, printable, read
from tests.support.pictures import content, drawn

LIMITS = Limits()


def folder_of(tmp_path: Path, count: int = 8) -> Path:
    folder = tmp_path / "exemplars"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").write_bytes(content(drawn(64, 64, number)))
    return folder


def notes_of(folder: Path, limits: Limits = LIMITS) -> tuple[str, ...]:
    return load_exemplars(folder, resolution=32, limits=limits).notes


def test_a_link_to_outside_is_not_followed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    secret = tmp_path / "secret.png"
    secret.write_bytes(content(drawn(number=77)))
    (folder / "link.png").symlink_to(secret)
    (folder / "relative.png").symlink_to("../secret.png")
    (folder / "chain.png").symlink_to(folder / "link.png")
    assert notes_of(folder) == (
        (
            f'chain.png, link.png, relative.png: each is a symbolic link into "{tmp_path}", outside of the allowed folders, '
            "and is not followed; add that folder to CORRECTOR_EXEMPLAR_ROOTS, or copy the images themselves here"
        ),
    )
    for allowed in ((tmp_path / "elsewhere",), (tmp_path / "secret",), ()):
        assert len(notes_of(folder, Limits(roots=allowed))) == 1


def test_a_link_within_a_linked_folder_is_followed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 7)
    store = folder / ".store"
    store.mkdir()
    (store / "blob").write_bytes(content(drawn(64, 64, 7)))
    (folder / "7.png").symlink_to(".store/blob")
    entrance = tmp_path / "entrance"
    entrance.symlink_to(folder)
    assert notes_of(entrance) == ()
    assert len(load_exemplars(entrance, resolution=32).training) == 4


def test_broken_links_loops_and_linked_folders_are_noted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "broken.png").symlink_to(folder / "gone.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "inside").mkdir()
    (folder / "linked").symlink_to("inside")
    assert notes_of(folder) == (
        "broken.png, loop.png: each is a symbolic link that leads nowhere; copy the image itself here",
        "inside, linked: each is a folder, and folders inside are not searched; move its images up",
    )


def test_pipes_and_sockets_are_noted_and_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path)
    os.mkfifo(folder / "pipe.png")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert notes_of(folder) == (
            "pipe.png, socket.png: each is a pipe, socket or device, not a file; remove it",
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read_is_noted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "private.png").write_bytes(content(drawn()))
    (folder / "private.png").chmod(0)
    assert notes_of(folder) == (
        "private.png: cannot be opened (Permission denied); make it readable or remove it",
    )


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with (folder / "huge.png").open("wb") as file:
        file.truncate(2**40)
    assert notes_of(folder) == ("huge.png: is larger than 64 MiB; save it smaller",)


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    file = content(drawn())
    (tmp_path / "a.png").write_bytes(file)
    assert read(tmp_path, "a.png", Limits(file_bytes=len(file))) == file
    with pytest.raises(UnreadableFileError, match="is larger than"):
        read(tmp_path, "a.png", Limits(file_bytes=len(file) - 1))


def test_of_a_film_only_the_first_bytes_are_read(tmp_path: Path) -> None:
    with (tmp_path / "film.mp4").open("wb") as file:
        file.write(b"\0\0\0\x20ftypisom")
        file.truncate(2**40)
    with pytest.raises(NotAnImageError):
        read(tmp_path, "film.mp4", LIMITS)


def test_images_come_before_other_files_when_a_folder_holds_too_many(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 8)
    for number in range(30):
        (folder / f"0-{number}.txt").touch()
    assert names(folder, Limits(files=8)) == ([f"{number}.png" for number in range(8)], 30)
    notes = notes_of(folder, Limits(files=8))
    assert notes == ("30 more files were not looked at: 8 are the limit; keep the best here",)


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "a\nb\x1b[2J.png").touch()
    (folder / os.fsdecode(b"\xff\xfe.png")).touch()
    notes = notes_of(folder)
    assert notes[0].startswith(r"a\nb\x1b[2J.png, \udcff\udcfe.png: each is empty")
    assert all(note.isprintable() and note.encode() for note in notes)


def test_names_of_any_language_stay_readable() -> None:
    assert printable("人が横たわる.png") == "人が横たわる.png"


def test_a_folder_name_cannot_steer_the_terminal_either(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*\\x1b\[31mred"):
        load_exemplars(tmp_path / "\x1b[31mred", resolution=32)
