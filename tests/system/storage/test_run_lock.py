"""A run on S3 is locked by a PostgreSQL server, on whichever node its job is."""

from __future__ import annotations

from pathlib import Path

import pytest

from corrector.errors import UserError
from jobs.inputs.run_folder import RunFolder
from jobs.inputs.run_lock import locked
from tests.support.lock_holder import lock_held
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("postgres")


def is_free(run: RunFolder) -> bool:
    try:
        with locked(run):
            return True
    except UserError:
        return False


def test_a_run_is_locked_by_one_job_until_that_dies(
    bucket: str, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRECTOR_DATABASE", postgres)
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "second"))
    run = RunFolder(f"s3://{bucket}/runs", "people")
    with lock_held(f"s3://{bucket}/runs", CORRECTOR_CACHE=str(tmp_path / "first")) as holder:
        with pytest.raises(UserError, match=rf"process {holder.pid} on .* --run-id"), locked(run):
            pass
        assert is_free(RunFolder(f"s3://{bucket}/runs", "others"))
    wait_until(lambda: is_free(run))  # the server notices that the connection has ended


def test_a_database_that_does_not_answer_is_named(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRECTOR_DATABASE", "postgresql+psycopg://me:secret@127.0.0.1:1/locks")
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path))
    run = RunFolder(f"s3://{bucket}/runs", "people")
    with (
        pytest.raises(UserError, match="CORRECTOR_DATABASE: the run cannot be locked there") as refused,
        locked(run),
    ):
        pass
    assert "secret" not in str(refused.value)
