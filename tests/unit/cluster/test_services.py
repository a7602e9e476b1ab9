"""What a job is told of the servers of its machine, beside what its user has."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.mlflow_server import MlflowServer
from cluster.object_store import ObjectStore
from cluster.services import Services

STORE = ObjectStore("store", 20000, "corrector:key", "secret")
MLFLOW = MlflowServer(
    "mlflow", 20001, "sqlite:///mlflow.db", "s3://mlflow", STORE.endpoint, password="password"
)


def test_a_job_of_somebody_without_registries_uses_the_running_ones(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "AWS_PAGER": "less", "MLFLOW_TRACKING_TOKEN": "of another server"}
    found = Services(STORE, MLFLOW, None).job_environment(own)
    assert found == {"AWS_PAGER": "less", **STORE.environment, **MLFLOW.environment}


def test_a_job_of_somebody_with_an_mlflow_server_uses_that(tmp_path: Path) -> None:
    own = {
        "HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": "https://mlflow.example",
        "MLFLOW_TRACKING_TOKEN": "token",
    }
    found = Services(STORE, MLFLOW, None).job_environment(own)
    assert found == {
        "MLFLOW_TRACKING_URI": "https://mlflow.example",
        "MLFLOW_TRACKING_TOKEN": "token",
        **STORE.environment,
    }


@pytest.mark.parametrize("own", [{"AWS_PROFILE": "team"}, {"AWS_ENDPOINT_URL": "https://ceph.example"}, {}])
def test_a_job_of_somebody_with_an_s3_uses_that(tmp_path: Path, own: dict[str, str]) -> None:
    if not own:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "credentials").write_text("[default]")
    found = Services(STORE, MLFLOW, None).job_environment({"HOME": str(tmp_path), **own})
    assert found == {**own, **MLFLOW.environment}


def test_a_job_beside_nothing_is_told_nothing(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "PATH": "/bin", "MLFLOW_TRACKING_URI": ""}
    assert Services(None, None, None).job_environment(own) == {}
