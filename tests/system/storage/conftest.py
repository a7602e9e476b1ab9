"""One client of the run's S3 server, and a bucket of its own for every test."""

import secrets
from pathlib import Path
from typing import Any

import pytest

from cluster.object_store import ObjectStore
from tests.support.servers import use_object_store


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
