"""Databases of a PostgreSQL server."""

from __future__ import annotations

import secrets

from sqlalchemy import create_engine, text


def new_database(server: str) -> str:
    """The URL of a new, empty database of the server at this URL."""
    name = f"test_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")
