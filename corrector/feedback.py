"""FeedbackStore: the requests that the endpoint answered with images, and users' verdicts on them, in a database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from corrector.errors import UserError

FILE_NAME = "feedback.sqlite"
MAX_VERDICTS = 10
"""On one request: the database grows no faster than images are drawn."""
_BUSY_SECONDS = 10.0
_TRIM_EVERY = 256
"""Requests between two deletions of old ones."""

_TABLES = MetaData()
_REQUESTS = Table(
    "feedback_requests",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False),
    Column("id", String(200), nullable=False),
    Column("request", JSON, nullable=False),
    Column("verdicts", Integer, nullable=False, default=0),
    UniqueConstraint("key", "id"),
)
_VERDICTS = Table(
    "feedback_verdicts",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("verdict", String(10), nullable=False),
    Column("note", Text, nullable=False),
    Column("given", Double, nullable=False),
    Column("key", Text, nullable=False),
    Column("request", JSON, nullable=False),
)


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
    """The latest requests and all verdicts; blocks, so call it from a thread. Several processes may write."""

    def __init__(self, place: Path | str, *, remembered: int) -> None:
        """Opens the database, and makes its tables where they are missing.

        Args:
            place: A SQLAlchemy URL, or a folder for a SQLite file. A network file system can hold the file if its POSIX locks
                work: it has a rollback journal, since WAL needs shared memory.
            remembered: The number of latest requests that are kept.

        Raises:
            UserError: The database cannot be used.
        """
        self._remembered = remembered
        self._added = 0
        self._lock = threading.Lock()
        with _reported(place):
            self._engine = _engine(place)
            _TABLES.create_all(self._engine)

    def remember(self, request: GenerationRecord) -> None:
        """Store a request; it replaces an earlier one of the same key and id."""
        same = (_REQUESTS.c.key == request.key) & (_REQUESTS.c.id == request.id)
        with self._lock, self._engine.begin() as connection:
            connection.execute(delete(_REQUESTS).where(same))
            connection.execute(
                insert(_REQUESTS).values(key=request.key, id=request.id, request=asdict(request))
            )
            self._added += 1
            if self._added % _TRIM_EVERY == 0:
                newest = select(func.max(_REQUESTS.c.number)).scalar_subquery()
                connection.execute(delete(_REQUESTS).where(_REQUESTS.c.number <= newest - self._remembered))

    def record(self, verdict: Verdict) -> bool:
        """Store a verdict. Returns False where the key has no such request, or it is too old, or has too many verdicts."""
        counted = (
            update(_REQUESTS)
            .where(
                _REQUESTS.c.key == verdict.key,
                _REQUESTS.c.id == verdict.request_id,
                _REQUESTS.c.verdicts < MAX_VERDICTS,
            )
            .values(verdicts=_REQUESTS.c.verdicts + 1)
            .returning(_REQUESTS.c.request)
        )
        with self._lock, self._engine.begin() as connection:
            request = connection.scalar(counted)
            if request is None:
                return False
            connection.execute(
                insert(_VERDICTS).values(
                    verdict=verdict.verdict,
                    note=verdict.note,
                    given=time.time(),
                    key=verdict.key,
                    request=request,
                )
            )
        return True

    def close(self) -> None:
        with self._lock:
            self._engine.dispose()


def read_verdicts(place: Path | str) -> list[dict[str, Any]]:
    """All verdicts in the order in which they were given: `verdict`, `note`, `given` (seconds since 1970), `key`, and
    `request`, a GenerationRecord.

    Raises:
        UserError: The database cannot be read; a SQLite file is not made where it is missing.
    """
    if isinstance(place, Path) and not place.exists():
        raise UserError(f"{place}: there is no such file; expected the endpoint's {FILE_NAME}")
    with _reported(place):
        engine = _engine(place)
        try:
            with engine.connect() as connection:
                found = connection.execute(select(_VERDICTS).order_by(_VERDICTS.c.number)).mappings()
                return [{name: row[name] for name in row if name != "number"} for row in found]
        finally:
            engine.dispose()


def _engine(place: Path | str) -> Any:
    if isinstance(place, str) and "://" in place:
        return create_engine(place, pool_pre_ping=True)
    path = Path(place)
    if path.is_dir() or not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path = path / FILE_NAME
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=TRUNCATE")
        connection.execute("PRAGMA synchronous=FULL")

    return engine


@contextmanager
def _reported(place: Path | str) -> Iterator[None]:
    """Failures of the database as UserError, without the password of its URL."""
    try:
        yield
    except (OSError, ImportError, SQLAlchemyError) as error:
        shown = str(place).rpartition("@")[2]
        if isinstance(error, ArgumentError | NoSuchModuleError | ImportError):
            raise UserError(f"{shown}: is no database that can be used here: {error}") from error
        reason = str(getattr(error, "orig", None) or error).strip()
        raise UserError(f"{shown}: requests and verdicts cannot be kept there: {reason}") from error
