"""A real MLflow server for the tests: started once, by the first test that asks for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import mlflow_server as servers
from cluster import ports
from cluster.mlflow_server import MlflowOptions, MlflowServer
from cluster.object_store import ObjectStore
from cluster.state import PROJECT

MODULE = (sys.executable, "-m", "cluster.mlflow_server")


def run(command: str, *options: str, state: Path) -> subprocess.CompletedProcess[str]:
    """`python -m cluster.mlflow_server COMMAND`, as a user runs it."""
    return subprocess.run(
        [*MODULE, command, f"--state={state}", *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="session")
def mlflow_server(
    object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    """The server on a free port, with its `tracking_uri` and `environment`; artifacts lie on `object_store`."""
    state = tmp_path_factory.mktemp("mlflow-server")
    port = ports.choose("port", None, taken=set())
    server = servers.start(MlflowOptions(port=port, store=object_store), state=state)
    yield server
    servers.stop(server, state=state)


def use(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow's variables point to `server`, and nothing else."""
    for name in servers.ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
