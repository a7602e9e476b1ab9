"""All servers of a machine together: up, used by a job, down, and up again with everything still there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cluster import mlflow_server, object_store, ports, processes, services
from cluster.mlflow_server import MlflowServer
from cluster.object_store import ObjectStore
from cluster.object_store_configuration import SERVERS
from cluster.services import Services, States
from cluster.state import PROJECT

# A job that registers an adapter, on a worker that has nothing but its environment to find the registry by.
REGISTER = """
import ray
@ray.remote
def register():
    import mlflow
    client = mlflow.MlflowClient()
    work = client.create_run("0")
    client.log_text(work.info.run_id, "weights", "adapter/weights")
    client.create_registered_model("lying")
    source = f"{work.info.artifact_uri}/adapter"
    return client.create_model_version("lying", source, work.info.run_id).version
ray.init(logging_level="ERROR")
print("registered", ray.get(register.remote()))
"""
READ = """
import mlflow, pathlib
print(pathlib.Path(mlflow.artifacts.download_artifacts("models:/lying/1"), "weights").read_text())
"""

STORE = ObjectStore("store", 20000, "corrector:key", "secret")
MLFLOW = MlflowServer(
    "mlflow", 20001, "sqlite:///mlflow.db", "s3://mlflow", STORE.endpoint, password="password"
)


def run(
    command: str, *options: str, states: States, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m cluster.services COMMAND`, as a user runs it."""
    state = (f"--state={states.servers}", f"--head-state={states.head}")
    return python("-m", "cluster.services", command, *state, *options, environment=environment)


def python(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def without_registries(home: Path) -> dict[str, str]:
    """This process's environment, but of somebody who has neither S3 nor MLflow."""
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_", "RAY_"))
    }
    return {**others, "HOME": str(home)}


def marks(states: States) -> tuple[str, ...]:
    running = services.current(states=states)
    assert running.store and running.mlflow and running.head
    return running.store.mark, running.mlflow.mark, running.head.mark


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[States]:
    """State folders of servers that are up when a test begins, and hold the adapter "lying" from the first on."""
    root = tmp_path_factory.mktemp("services")
    states = States(root / "servers", root / "head")
    port = ports.choose("port", None, taken=set())
    started = run("up", f"--mlflow-port={port}", states=states)
    try:
        assert started.returncode == 0, started.stderr
        assert f"MLflow at http://127.0.0.1:{port}" in started.stdout
        yield states
    finally:
        services.down(states=states)


def test_a_job_finds_the_running_services(states: States, tmp_path: Path) -> None:
    ran = python(
        *("-m", "cluster.local", "run", f"--state={states.head}", f"--services={states.servers}"),
        *("--", "python", "-c", REGISTER),
        environment=without_registries(tmp_path),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "registered 1\n" in ran.stdout
    mlflow = services.current(states=states).mlflow
    assert mlflow is not None and f"MLFLOW_TRACKING_URI={mlflow.tracking_uri}" in ran.stderr
    secret = json.loads((states.objects / "keys.json").read_text())["secret_key"]
    assert secret not in ran.stdout + ran.stderr


def test_up_twice_is_harmless(states: States) -> None:
    before = marks(states)
    again = run("up", states=states)
    assert again.returncode == 0, again.stderr
    assert marks(states) == before


def test_everything_is_there_again_after_down_and_up(states: States, tmp_path: Path) -> None:
    before = services.current(states=states)
    assert before.store and before.mlflow and before.head
    stopped = run("down", states=states)
    assert stopped.returncode == 0 and f"data kept in {states.servers}" in stopped.stdout
    signs = [before.mlflow.signs, before.head.signs, *map(before.store.signs, SERVERS)]
    assert not any(map(processes.find, signs))
    assert run("down", states=states).returncode == 0
    status = run("status", states=states)
    assert status.returncode == 3 and "MLflow is not running" in status.stdout
    assert run("env", states=states).returncode == 3

    assert run("up", states=states).returncode == 0
    exports = run("env", states=states).stdout
    read = subprocess.run(
        ["sh", "-c", f'{exports}\n"$0" -c "$1"', sys.executable, READ],
        env=without_registries(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert read.stdout == "weights\n", read.stderr


def test_mlflow_follows_an_object_store_that_was_started_anew(states: States, tmp_path: Path) -> None:
    before = services.current(states=states)
    assert before.store and before.mlflow
    object_store.stop(before.store, state=states.objects)
    moved = object_store.start(state=states.objects)
    assert moved.port != before.store.port
    up = run("up", states=states)
    assert up.returncode == 0, up.stderr
    after = services.current(states=states)
    assert after.mlflow and after.mlflow.s3_endpoint == moved.endpoint
    assert after.mlflow.port == before.mlflow.port
    environment = without_registries(tmp_path) | after.mlflow.environment
    assert python("-c", READ, environment=environment).stdout == "weights\n"


def test_what_is_up_with_other_options_is_left_alone(states: States) -> None:
    before = marks(states)
    refused = run("up", "--auth", states=states)
    assert refused.returncode == 2 and "with another setting of auth; stop it first" in refused.stderr
    assert marks(states) == before


def test_an_up_that_fails_stops_what_it_had_started(tmp_path: Path) -> None:
    states = States(tmp_path / "servers", tmp_path / "head")
    with socket.socket() as other:
        other.bind((ports.LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        failed = run("up", f"--mlflow-port={port}", states=states)
    assert failed.returncode == 2 and f"port {port} is taken on 127.0.0.1" in failed.stderr
    assert services.current(states=states) == Services(None, None, None)
    assert (states.objects / "logs" / "proxy.log").exists(), "it had been started"


def test_mlflow_is_where_people_expect_it() -> None:
    assert mlflow_server.PORT == 5000


def test_a_job_of_somebody_without_registries_uses_the_running_ones(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "AWS_PAGER": "less", "MLFLOW_TRACKING_TOKEN": "of another server"}
    found = Services(STORE, MLFLOW, None).environment_beside(own)
    assert found == {"AWS_PAGER": "less", **STORE.environment, **MLFLOW.environment}


def test_a_job_of_somebody_with_an_mlflow_server_uses_that(tmp_path: Path) -> None:
    own = {
        "HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": "https://mlflow.example",
        "MLFLOW_TRACKING_TOKEN": "token",
    }
    found = Services(STORE, MLFLOW, None).environment_beside(own)
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
    found = Services(STORE, MLFLOW, None).environment_beside({"HOME": str(tmp_path), **own})
    assert found == {**own, **MLFLOW.environment}


def test_a_job_beside_nothing_is_told_nothing(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "PATH": "/bin", "MLFLOW_TRACKING_URI": ""}
    assert Services(None, None, None).environment_beside(own) == {}
