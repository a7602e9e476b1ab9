"""What the commands of MLflow and object store refuse before anything is started."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from cluster import mlflow_server, object_store, ports
from cluster.mlflow_configuration import without_password
from cluster.mlflow_server import MlflowOptions
from corrector.errors import UserError
from tests.support.commands import run


def test_a_taken_port_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        options = (f"--port={port}", f"--artifacts-destination={tmp_path}", f"--state={tmp_path / 'state'}")
        refused = run(mlflow_server.main, "start", *options)
    assert refused.returncode == 2
    assert f"port {port} is taken on 127.0.0.1 by" in refused.stderr
    assert f"(pid {os.getpid()})" in refused.stderr


def test_mlflow_is_where_people_expect_it() -> None:
    assert mlflow_server.PORT == 5000


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask_wtf", None)
    with pytest.raises(UserError, match="pip install Flask-WTF"):
        mlflow_server.start(MlflowOptions(artifacts=str(tmp_path), auth=True), state=tmp_path)
    monkeypatch.setitem(sys.modules, "swift", None)
    with pytest.raises(UserError, match="pip install swift pyeclib"):
        object_store.start(state=tmp_path)


def test_a_database_password_is_never_shown() -> None:
    assert without_password("postgresql://mlflow:hidden@db/mlflow") == "postgresql://mlflow:***@db/mlflow"
    with pytest.raises(UserError, match="not the URL of a database") as refused:
        without_password("mlflow:hidden@db")
    assert "hidden" not in str(refused.value)
