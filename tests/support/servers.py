"""Servers that all tests of a run share: a Ray head, an S3 server and MLflow.

The first test that asks for a server starts it, in whichever process that test runs; the process that pytest was started in
stops them all at the end. Tests separate their data by names of their own: bucket, registered model, run folder, Ray Serve
application.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from cluster import head as heads
from cluster import mlflow_server, object_store, ports
from cluster.head import Head, HeadOptions
from cluster.mlflow_server import MlflowOptions, MlflowServer
from cluster.object_store import ObjectStore
from cluster.services import States
from cluster.state_folder import locked

FOLDER = "CORRECTOR_TEST_SERVERS"
"""Environment variable with the servers' state folder, which the processes of a run inherit."""
CPUS = 2
"""Of the Ray head. Tests that hold its CPUs belong to the xdist group "ray", so that they do not wait for each other."""


class SharedServers:
    """The servers whose state lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_this_run(cls) -> SharedServers:
        """Those of the run to which this process belongs; the first process of a run makes their folder."""
        if FOLDER not in os.environ:
            os.environ[FOLDER] = tempfile.mkdtemp(prefix="servers-")
        servers = cls(Path(os.environ[FOLDER]))
        # Ray reads these when it is imported and when it first connects.
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(servers._folder / "head" / "auth_token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        return servers

    @property
    def states(self) -> States:
        """Their state folders, as the commands of `cluster` take them."""
        return States(self._folder, self._folder / "head")

    def head(self) -> Head:
        """The Ray head, of CPUS logical CPUs."""
        with locked(self._folder):
            state = self._folder / "head"
            return heads.current(state) or heads.start(HeadOptions(num_cpus=CPUS), state=state)

    def object_store(self) -> ObjectStore:
        """The S3 server."""
        return object_store.start(state=self._folder / "objects")

    def mlflow(self) -> MlflowServer:
        """The MLflow server; its artifacts lie in the S3 server."""
        store = self.object_store()
        with locked(self._folder):
            state = self._folder / "mlflow"
            if (running := mlflow_server.current(state)) is not None:
                return running
            port = ports.choose("port", None, taken=set())
            return mlflow_server.start(MlflowOptions(port=port, store=store), state=state)

    def stop(self) -> None:
        """Stop what runs, and remove what it kept."""
        if (mlflow := mlflow_server.current(self._folder / "mlflow")) is not None:
            mlflow_server.stop(mlflow, state=self._folder / "mlflow")
        if (store := object_store.current(self._folder / "objects")) is not None:
            object_store.stop(store, state=self._folder / "objects")
        if (self._folder / "head").exists() and (head := heads.current(self._folder / "head")) is not None:
            heads.stop(head, state=self._folder / "head")
        shutil.rmtree(self._folder, ignore_errors=True)


def use_object_store(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the AWS variables point to `store`, and nothing that the user has configured come in between."""
    _use(store.environment, object_store.CONFLICTING_VARIABLES, monkeypatch)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))


def use_mlflow(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow's variables point to `server`, and nothing else."""
    _use(server.environment, mlflow_server.CONFLICTING_VARIABLES, monkeypatch)


def _use(environment: dict[str, str], elsewhere: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in elsewhere:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
