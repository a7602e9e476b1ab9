"""The tables of surveys, and the engine of their database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Double,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
)
from sqlalchemy.pool import NullPool

FILE_NAME = "votes.sqlite"

_TABLES = MetaData()
SURVEYS = Table(
    "surveys",
    _TABLES,
    Column("id", String(64), primary_key=True),
    Column("definition", JSON, nullable=False),
    Column("closed", Double),
)
RATERS = Table(
    "survey_raters",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("survey", String(64), nullable=False),
    Column("pseudonym", String(16), nullable=False),
    Column("name", Text),
    Column("link", String(16)),
    UniqueConstraint("survey", "pseudonym"),
    UniqueConstraint("survey", "name"),
    UniqueConstraint("survey", "link"),
)
BROWSERS = Table(
    "survey_browsers",
    _TABLES,
    Column("survey", String(64), primary_key=True),
    Column("rater", String(16), primary_key=True),
    Column("browser", String(16), primary_key=True),
)
VIEWS = Table(
    "survey_views",
    _TABLES,
    Column("survey", String(64), primary_key=True),
    Column("id", String(16), primary_key=True),
    Column("rater", String(16), nullable=False),
    Column("number", Integer, nullable=False),
    Column("pair", String(16), nullable=False),
    Column("left", String(1), nullable=False),
    Column("repeat", Boolean, nullable=False),
    Column("shown", Double, nullable=False),
    UniqueConstraint("survey", "rater", "number"),
)
VOTES = Table(
    "survey_votes",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("survey", String(64), nullable=False),
    Column("id", String(32), nullable=False),
    Column("view", String(16), nullable=False, index=True),
    Column("answers", JSON, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("given", Double, nullable=False),
    UniqueConstraint("survey", "id"),
)


def open_engine(place: Path | str, busy_seconds: float) -> Engine:
    """The engine of the database at `place`, a SQLAlchemy URL or a folder for a SQLite file; missing tables are made.

    Args:
        busy_seconds: Longest time to wait for another writer of a SQLite file.
    """
    engine = _engine(place, busy_seconds)
    _TABLES.create_all(engine)
    return engine


def _engine(place: Path | str, busy_seconds: float) -> Engine:
    url = str(place)
    if "://" not in url:
        path = Path(place) / FILE_NAME
    elif url.startswith("sqlite:"):
        path = Path(url.partition(":///")[2])
    else:
        return create_engine(url, pool_pre_ping=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    def connect() -> sqlite3.Connection:
        # Mode rw: a file that is gone is an error, and not a new, empty file.
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=busy_seconds, check_same_thread=False)
        for setting in ("journal_mode=TRUNCATE", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {setting}")
        return connection

    # A connection for each call: one that is kept would write on to a file that was replaced meanwhile.
    return create_engine("sqlite://", creator=connect, poolclass=NullPool)
