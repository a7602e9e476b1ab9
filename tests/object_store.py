"""A real S3 server for the tests: started once, by the first test that asks for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import object_store as stores
from cluster.object_store import ObjectStore
from cluster.state import PROJECT


def run(command: str, *options: str, state: Path) -> subprocess.CompletedProcess[str]:
    """`python -m cluster.object_store COMMAND`, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "cluster.object_store", command, f"--state={state}", *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """The server on a free port, with its `endpoint`, `access_key` and `secret_key`; it has no buckets yet."""
    state = tmp_path_factory.mktemp("object-store")
    started = run("start", state=state)
    assert started.returncode == 0, started.stderr
    store = stores.current(state)
    assert store is not None
    yield store
    assert run("stop", state=state).returncode == 0


@pytest.fixture
def s3(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """boto3's client of the server, to which the AWS variables point for the duration of the test."""
    import boto3

    use(object_store, monkeypatch, tmp_path)
    return boto3.session.Session().client("s3")


def use(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the AWS variables point to `store`, and nothing that the user has configured come in between."""
    for name in stores.ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
