"""What the endpoint remembers, in SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from corrector.errors import UserError
from corrector.feedback import (
    FILE_NAME,
    MAX_VERDICTS,
    FeedbackStore,
    GenerationRecord,
    Verdict,
    read_verdicts,
)

pytestmark = pytest.mark.xdist_group("postgres")


def drawn(number: int) -> GenerationRecord:
    return GenerationRecord(
        id=f"r{number}",
        key="team",
        created=1.0,
        prompt="lying",
        seeds=(1, 2),
        adapter="lying@1",
        adapter_sha256="0" * 64,
        route="exact",
        base_revision="b",
        settings={"size": "64x64"},
    )


def test_requests_outlive_the_process_and_the_oldest_go(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corrector.feedback._TRIM_EVERY", 8)
    with closing(FeedbackStore(database, remembered=5)) as store:
        for number in range(10):
            store.remember(drawn(number))
    with closing(FeedbackStore(database, remembered=5)) as again:
        assert again.record(Verdict("r9", "team", "good", "drei Beine\n草"))
        assert again.record(Verdict("r3", "team", "bad"))
        assert not again.record(Verdict("r2", "team", "good"))
        assert not again.record(Verdict("r9", "other", "good"))
    found, _ = read_verdicts(database)
    assert (found["verdict"], found["note"], found["key"]) == ("good", "drei Beine\n草", "team")
    assert (found["request"]["id"], found["request"]["seeds"]) == ("r9", [1, 2])


def test_a_request_that_is_drawn_again_replaces_the_earlier(database: str) -> None:
    with closing(FeedbackStore(database, remembered=100)) as store:
        for _ in range(2):
            store.remember(drawn(1))
        assert store.record(Verdict("r1", "team", "good"))


def test_a_request_has_a_bounded_number_of_verdicts(database: str) -> None:
    with closing(FeedbackStore(database, remembered=100)) as store:
        store.remember(drawn(1))
        stored = [store.record(Verdict("r1", "team", "bad")) for _ in range(MAX_VERDICTS + 3)]
    assert stored == [True] * MAX_VERDICTS + [False] * 3
    assert len(read_verdicts(database)) == MAX_VERDICTS


def test_several_processes_may_write(database: str) -> None:
    stores = [FeedbackStore(database, remembered=10_000) for _ in range(3)]

    def work(index: int) -> None:
        for number in range(8):
            stores[index].remember(drawn(1000 * index + number))
            assert stores[index - 1].record(Verdict(f"r{1000 * index + number}", "team", "bad", "x" * 2000))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert len({verdict["request"]["id"] for verdict in read_verdicts(database)}) == 24


def test_a_verdict_that_cannot_be_written_may_be_given_again(database: str) -> None:
    engine = create_engine(database)

    def change(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement))

    with closing(FeedbackStore(database, remembered=100)) as store:
        store.remember(drawn(1))
        change("ALTER TABLE feedback_verdicts RENAME TO elsewhere")
        for _ in range(MAX_VERDICTS):
            with pytest.raises(Exception, match="feedback_verdicts"):
                store.record(Verdict("r1", "team", "bad"))
        change("ALTER TABLE elsewhere RENAME TO feedback_verdicts")
        assert store.record(Verdict("r1", "team", "bad"))
    engine.dispose()


def test_a_folder_has_a_file_with_a_rollback_journal(tmp_path: Path) -> None:
    """A write-ahead log needs memory that all writers share: no network file system has it."""
    with closing(FeedbackStore(str(tmp_path / "feedback"), remembered=100)) as store:
        store.remember(drawn(1))
        assert [path.name for path in (tmp_path / "feedback").iterdir() if path.stat().st_size] == [FILE_NAME]
        assert store.record(Verdict("r1", "team", "good"))
    assert len(read_verdicts(tmp_path / "feedback" / FILE_NAME)) == 1


@pytest.mark.parametrize("place", ["nosuch://place", "postgresql+psycopg://me:secret@127.0.0.1:1/feedback"])
def test_a_database_that_cannot_be_used_is_named_without_its_password(place: str) -> None:
    with pytest.raises(UserError, match=place.rpartition("@")[2]) as refused:
        FeedbackStore(place, remembered=100)
    assert "secret" not in str(refused.value)


def test_verdicts_are_not_made_by_reading_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file"):
        read_verdicts(tmp_path / "feedback.sqlite")
    assert list(tmp_path.iterdir()) == []
