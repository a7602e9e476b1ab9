"""FeedbackStore: requests that were answered, and what people said about them."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from corrector.errors import UserError
from corrector.settings import Settings
from serving.ingress.service import DrawnRequest, Verdict
from serving.ingress.settings import IngressSettings

VERDICTS_NAME = "verdicts.jsonl"
MAX_VERDICTS = 10
"""On one request: the file grows no faster than images are drawn."""
_REQUESTS_NAME = "requests.sqlite"
_BUSY_SECONDS = 10.0
_TRIM_EVERY = 256
"""Requests between two looks at how many there are."""


def open_feedback(settings: IngressSettings) -> FeedbackStore:
    """The store in the folder that the settings name.

    Raises:
        UserError: It cannot be written.
    """
    folder = settings.feedback or Settings.from_environment().runs / "feedback"
    return FeedbackStore(folder, remembered=settings.remembered_requests)


class FeedbackStore:
    """A folder with the latest requests in SQLite and all verdicts in JSON Lines; processes of one machine may share it.

    A line of `verdicts.jsonl` is an object with `verdict`, `note`, `given` (seconds since 1970), `key` and `request`, the
    DrawnRequest. Blocks; call it from a thread.
    """

    def __init__(self, folder: Path, *, remembered: int) -> None:
        """`remembered`: the requests that are kept; older ones go.

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
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS requests (number INTEGER PRIMARY KEY, key TEXT NOT NULL, id TEXT NOT NULL, "
                "request TEXT NOT NULL, verdicts INTEGER NOT NULL DEFAULT 0, UNIQUE (key, id))"
            )
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{folder}: requests and verdicts cannot be kept there: {error}") from error

    def remember(self, request: DrawnRequest) -> None:
        """Keeps a request; a later one of the same key and id takes its place."""
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
        """Stores a verdict for good; False where its key drew no such request, or too long ago, or has judged it enough."""
        with (
            self._lock,
            closing(
                self._connection.execute(
                    "UPDATE requests SET verdicts = verdicts + 1 WHERE key = ? AND id = ? AND verdicts < ? "
                    "RETURNING request",
                    (verdict.key, verdict.request_id, MAX_VERDICTS),
                )
            ) as found,
        ):
            row = found.fetchone()
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
        # One write to a file opened for appending: lines of several processes never mix.
        descriptor = os.open(self._verdicts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True

    def close(self) -> None:
        """Lets go of the files."""
        with self._lock:
            self._connection.close()
