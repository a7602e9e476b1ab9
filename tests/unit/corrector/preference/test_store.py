"""A SQLite file that is locked, full or gone: the vote is not acknowledged, and the next attempt stores it."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.preference.showing import showings
from corrector.preference.store import StoreError, VoteStore
from corrector.preference.vote_tables import FILE_NAME
from corrector.preference.votes import View
from tests.support.small_disk import SmallDisk
from tests.support.surveys import LEFT, defined

MIB = 1024**2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VoteStore]:
    store = VoteStore(tmp_path, defined(pairs=3), busy_seconds=0.1)
    yield store
    store.dispose()


@pytest.fixture
def rater(store: VoteStore) -> str:
    return store.add_rater("Ann").pseudonym


@pytest.fixture
def view(store: VoteStore, rater: str) -> View:
    return store.show(rater, 0, showings(store.survey, rater)[0])


def vote(store: VoteStore, rater: str, view: View, vote_id: str = "", seconds: float = 0.0) -> None:
    vote_id = vote_id or secrets.token_hex(16)
    store.vote(rater, vote_id=vote_id, view_id=view.id, answers=LEFT, seconds=seconds)


def test_a_vote_waits_for_no_lock_for_ever(store: VoteStore, rater: str, view: View, tmp_path: Path) -> None:
    vote_id = secrets.token_hex(16)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="database is locked"):
            vote(store, rater, view, vote_id)
        other.execute("ROLLBACK")
    vote(store, rater, view, vote_id)
    assert [stored.id for stored in store.votes()] == [vote_id]


def test_a_vote_that_a_full_disk_cannot_take_is_stored_once_there_is_room(tmp_path: Path) -> None:
    with SmallDisk(tmp_path, size=2 * MIB) as disk:
        store = VoteStore(tmp_path, defined(pairs=3))
        rater = store.add_rater("Ann").pseudonym
        view = store.show(rater, 0, showings(store.survey, rater)[0])
        disk.fill(leaving=0)
        with pytest.raises(StoreError, match="full"):
            vote(store, rater, view)
        assert store.votes() == []
        disk.free()
        vote(store, rater, view)
        assert len(store.votes()) == 1
        store.dispose()


def test_a_file_that_is_gone_is_an_error_and_not_an_empty_one(
    store: VoteStore, rater: str, view: View, tmp_path: Path
) -> None:
    kept = (tmp_path / FILE_NAME).rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="unable to open"):
        vote(store, rater, view)
    assert not (tmp_path / FILE_NAME).exists()
    kept.rename(tmp_path / FILE_NAME)
    vote(store, rater, view)
    assert len(store.votes()) == 1


def test_no_more_time_is_recorded_than_has_passed(store: VoteStore, rater: str, view: View) -> None:
    started = time.time()
    vote(store, rater, view, seconds=3600.0)
    vote(store, rater, view, seconds=0.0)
    long, none = store.votes()
    assert 0 <= long.seconds <= time.time() - view.shown and started <= long.given
    assert none.seconds == 0.0


def test_a_name_leaves_no_trace_in_the_file(store: VoteStore, tmp_path: Path) -> None:
    store.add_rater("Ann Example")
    assert b"Ann Example" in (tmp_path / FILE_NAME).read_bytes()
    store.forget("Ann Example")
    assert b"Ann Example" not in (tmp_path / FILE_NAME).read_bytes()


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("nonsense://user:hidden@host/x", "host/x: is no database"),
        ("postgresql+psycopg://user:hidden@127.0.0.1:1/x", "127.0.0.1:1/x: votes cannot be kept there"),
        ("sqlite:////proc/none/x.sqlite", "x.sqlite: votes cannot be kept there"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(place: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        VoteStore(place, defined(pairs=1))
    assert named in str(caught.value) and "hidden" not in str(caught.value)
