"""FeedbackStore: the requests that were answered with images, and users' verdicts on them."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from corrector.errors import UserError

VERDICTS_NAME = "verdicts.jsonl"
MAX_VERDICTS = 10
"""On one request: the file grows no faster than images are drawn."""
_REQUESTS_NAME = "requests.sqlite"
_BUSY_SECONDS = 10.0
_TRIM_EVERY = 256
"""Requests between two deletions of old ones."""


@dataclass(frozen=True)
class GenerationRecord:
    """A request that was answered with images.

    Attributes:
        id: The request's id.
        key: Name of its API key.
        created: Seconds since 1970.
        adapter: `NAME@VERSION`; None for the base.
        settings: Settings of sampling: steps, guidance scale, size, negative prompt.
    """

    id: str
    key: str
    created: float
    prompt: str
    seeds: tuple[int, ...]
    adapter: str | None
    adapter_sha256: str | None
    route: str
    base_revision: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """A user's verdict on a request's images; `key` as in GenerationRecord."""

    request_id: str
    key: str
    verdict: Literal["good", "bad"]
    note: str = ""


class FeedbackStore:
    """A folder with the latest requests in SQLite and all verdicts in JSON Lines; blocks, so call it from a thread.

    A line of `verdicts.jsonl` is an object with `verdict`, `note`, `given` (seconds since 1970), `key` and `request`, the
    GenerationRecord. Several processes may write, also on several machines, if the file system's POSIX locks work: the
    database has a rollback journal (WAL needs shared memory, which network file systems do not have), and a verdict is
    appended while the database is locked.
    """

    def __init__(self, folder: Path, *, remembered: int) -> None:
        """`remembered`: the number of latest requests that are kept.

        Raises:
            UserError: The folder cannot be written.
        """
        self._remembered = remembered
        self._verdicts = folder / VERDICTS_NAME
        self._lock = threading.Lock()
        self._added = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                folder / _REQUESTS_NAME, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            # Earlier releases used WAL mode; the change fails while another process has the file open in that mode.
            self._connection.execute("PRAGMA journal_mode=TRUNCATE")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS requests (number INTEGER PRIMARY KEY, key TEXT NOT NULL, id TEXT NOT NULL, "
                "request TEXT NOT NULL, verdicts INTEGER NOT NULL DEFAULT 0, UNIQUE (key, id))"
            )
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{folder}: requests and verdicts cannot be kept there: {error}") from error

    def remember(self, request: GenerationRecord) -> None:
        """Store a request; it replaces an earlier one of the same key and id."""
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO requests (key, id, request) VALUES (?, ?, ?)",
                (request.key, request.id, json.dumps(asdict(request))),
            )
            self._added += 1
            if self._added % _TRIM_EVERY == 0:
                self._connection.execute(
                    "DELETE FROM requests WHERE number <= (SELECT MAX(number) FROM requests) - ?",
                    (self._remembered,),
                )

    def record(self, verdict: Verdict) -> bool:
        """Store a verdict. Returns False where the key has no such request, or it is too old, or has too many verdicts."""
        # As a context manager the connection commits, or rolls back where the verdict could not be written.
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            row = self._connection.execute(
                "UPDATE requests SET verdicts = verdicts + 1 WHERE key = ? AND id = ? AND verdicts < ? RETURNING request",
                (verdict.key, verdict.request_id, MAX_VERDICTS),
            ).fetchone()
            if row is None:
                return False
            line = json.dumps(
                {
                    "verdict": verdict.verdict,
                    "note": verdict.note,
                    "given": time.time(),
                    "key": verdict.key,
                    "request": json.loads(row[0]),
                }
            )
            descriptor = os.open(self._verdicts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, (line + "\n").encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return True

    def close(self) -> None:
        with self._lock:
            self._connection.close()
