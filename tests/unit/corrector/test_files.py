"""Files and folders appear whole or not at all, also when several threads write the same one."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from corrector.files import (
    file_sha256,
    publish_folder,
    remove_least_recently_used,
    replace_folder,
    staging_folder,
    write_atomically,
)

WRITERS = 8


def at_once(action: Callable[[int], object]) -> list[BaseException | None]:
    """Run `action` in WRITERS threads that start together; what each raised."""
    barrier = Barrier(WRITERS)

    def run(number: int) -> None:
        barrier.wait()
        action(number)

    with ThreadPoolExecutor(WRITERS) as pool:
        return [future.exception() for future in [pool.submit(run, number) for number in range(WRITERS)]]


def write_folder(destination: Path, number: int, move: Callable[[Path, Path], Path]) -> None:
    with staging_folder(destination) as staging:
        (staging / "folder").mkdir()
        for name in ("a", "b"):
            (staging / "folder" / name).write_text(str(number))
        move(staging / "folder", destination)


def test_writers_of_one_file_replace_it_as_a_whole(tmp_path: Path) -> None:
    contents = [str(number) * 100_000 for number in range(WRITERS)]
    raised = at_once(
        lambda number: write_atomically(tmp_path / "x", contents[number], durable=number % 2 == 0)
    )
    assert raised == [None] * WRITERS
    assert (tmp_path / "x").read_text() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", b"old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "x", "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_one_of_several_publishers_wins_and_the_others_are_told(tmp_path: Path) -> None:
    raised = at_once(lambda number: write_folder(tmp_path / "x", number, publish_folder))
    assert sorted(str(type(error).__name__) for error in raised if error) == ["FileExistsError"] * (
        WRITERS - 1
    )
    assert (tmp_path / "x" / "a").read_text() == (tmp_path / "x" / "b").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_replaced_folders_are_never_mixed(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", 99, publish_folder)
    assert at_once(lambda number: write_folder(tmp_path / "x", number, replace_folder)) == [None] * WRITERS
    assert (tmp_path / "x" / "a").read_text() == (tmp_path / "x" / "b").read_text() != "99"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("budget", "spared_since", "left"),
    [
        (10**6, 9.0, ["a", "b", "c"]),
        (125_000, 9.0, ["b", "c"]),
        (0, 9.0, []),
        (0, 1.0, ["c"]),
    ],
)
def test_files_and_folders_are_removed_in_the_order_of_their_last_use(
    tmp_path: Path, budget: int, spared_since: float, left: list[str]
) -> None:
    (tmp_path / "b").write_bytes(bytes(50_000))
    for name in ("a", "c"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / "file").write_bytes(bytes(50_000))
    for second, name in enumerate(("a", "b", "c")):
        os.utime(tmp_path / name, (second, second))
    remove_least_recently_used(tmp_path.iterdir(), budget, spared_since=spared_since)
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_what_another_process_removes_first_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    remove_least_recently_used([tmp_path / "gone", tmp_path / "there"], 0)
    assert list(tmp_path.iterdir()) == []
