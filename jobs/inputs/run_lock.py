"""The lock of a run: one submission at a time works in it.

- Storage in a folder: a file lock in the run's folder, which the kernel releases when the process ends; NFS shares it.
- Storage on S3, which has no locks: an advisory lock of the PostgreSQL server that `CORRECTOR_DATABASE` names. The server
  releases it when the connection ends. Without that variable, a file lock on this node's disk, which other nodes do not see.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from corrector.errors import UserError
from corrector.settings import Settings
from jobs.inputs.run_folder import RunFolder, read_json, write_json

logger = logging.getLogger(__name__)

_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_SERVER_KEEPALIVE = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""After a node is lost, the server ends its connections, and releases their locks, within a minute."""


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Make the run's folders and lock it against other submissions until the block or this process ends.

    Raises:
        UserError: Another job holds the lock, and the message names it; or the database does not answer.
    """
    run.create()
    database = Settings.from_environment().database
    if run.storage.is_on_s3 and database is not None and database.startswith("postgresql"):
        lock = _database_lock(database, run)
    else:
        if run.storage.is_on_s3:
            logger.warning(
                "%s: S3 has no locks, so only submissions from this node are kept apart; "
                "name a PostgreSQL server in CORRECTOR_DATABASE",
                run.place.root,
            )
        lock = _file_lock(run)
    owner = run.place.file("owner.json")
    with lock as is_held:
        if not is_held:
            raise UserError(
                f"{run.place.root}: {_described(read_json(owner))} works in this run's folder; wait until it ends, "
                "stop it, or choose another --run-id"
            )
        write_json(owner, _this_job())
        try:
            yield
        finally:
            owner.remove()


@contextmanager
def _file_lock(run: RunFolder) -> Iterator[bool]:
    descriptor = os.open(run.place.disk / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = True
    except OSError as error:
        is_held = error.errno not in (errno.EAGAIN, errno.EACCES)
        if is_held:
            logger.warning(
                "%s: no file locks here (%s); do not submit a run twice at once", run.place.root, error
            )
    try:
        yield is_held
    finally:
        os.close(descriptor)


@contextmanager
def _database_lock(url: str, run: RunFolder) -> Iterator[bool]:
    from sqlalchemy import create_engine, text  # takes a while, and most jobs lock a file
    from sqlalchemy.exc import SQLAlchemyError

    key = int.from_bytes(hashlib.sha256(run.place.root.encode()).digest()[:8], signed=True)
    try:
        engine = create_engine(
            url, connect_args={"options": _SERVER_KEEPALIVE, "connect_timeout": 10} | _KEEPALIVE
        )
        connection = engine.connect()
        is_held = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
        connection.commit()
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).strip()
        raise UserError(f"CORRECTOR_DATABASE: the run cannot be locked there: {reason}") from error
    try:
        yield is_held
    finally:
        connection.close()
        engine.dispose()


def _this_job() -> dict[str, Any]:
    """Identifies this process for people; `job` is Ray's submission id, where `ray job submit` started it."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return {
        "job": config.get("metadata", {}).get("job_submission_id"),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _described(owner: dict[str, Any] | None) -> str:
    """A text that names the job in `owner.json`."""
    if owner is None:
        return "another job"
    return f"job {owner['job'] or '(local)'} (process {owner['process']} on {owner['host']}, since {owner['since']})"
