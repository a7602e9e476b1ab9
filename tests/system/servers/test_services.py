"""All servers of a machine together: up, used by a job, down, and up again with everything still there."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cluster import head as heads
from cluster import object_store, ports, services
from cluster.head import Head
from cluster.mlflow_server import MlflowServer
from cluster.object_store_configuration import SERVERS
from cluster.services import Services, States
from tests.support import commands
from tests.support.paths import PROJECT
from tests.support.servers import SharedServers, use_mlflow
from tests.support.shell import exported

# A job of which a worker says where its code is, and registers an adapter in the registry that its environment names.
REGISTER = """
import sys
import ray
@ray.remote
def register(name):
    import corrector, mlflow
    client = mlflow.MlflowClient()
    work = client.create_run("0")
    client.log_text(work.info.run_id, "weights", "adapter/weights")
    client.create_registered_model(name)
    source = f"{work.info.artifact_uri}/adapter"
    return corrector.__file__, sys.prefix, client.create_model_version(name, source, work.info.run_id).version
ray.init(logging_level="ERROR")
package, prefix, version = ray.get(register.remote(sys.argv[1]))
print("package", package, "prefix", prefix, "registered", version)
"""
READ = """
import mlflow, pathlib, sys
print(pathlib.Path(mlflow.artifacts.download_artifacts(f"models:/{sys.argv[1]}/1"), "weights").read_text())
"""


def run(command: str, *options: str, states: States) -> CompletedProcess[str]:
    """`python -m cluster.services COMMAND`."""
    state = (f"--state={states.servers}", f"--head-state={states.head}")
    return commands.run(services.main, command, *state, *options)


def without_registries(home: Path) -> dict[str, str]:
    """This process's environment, but of somebody who has neither S3 nor MLflow."""
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_", "RAY_"))
    }
    return {**others, "HOME": str(home)}


def labels(states: States) -> tuple[str, ...]:
    running = services.current(states=states)
    assert running.store and running.mlflow and running.head
    return running.store.label, running.mlflow.label, running.head.label


@pytest.mark.xdist_group("ray")
def test_a_job_finds_the_running_services(
    ray_head: Head,
    mlflow_server: MlflowServer,
    shared_servers: SharedServers,
    tmp_path: Path,
) -> None:
    states = shared_servers.states
    run_job = ("-m", "cluster.local", "run", f"--state={states.head}", f"--services={states.servers}")
    job = ("python", "-c", REGISTER, f"lying-{secrets.token_hex(6)}")
    ran = python(*run_job, "--", *job, environment=without_registries(tmp_path))
    found = f"package {PROJECT / 'corrector' / '__init__.py'} prefix {sys.prefix} registered 1\n"
    assert found in ran.stdout
    assert f"MLFLOW_TRACKING_URI={mlflow_server.tracking_uri}" in ran.stderr
    secret = json.loads((states.objects / "keys.json").read_text())["secret_key"]
    assert secret not in ran.stdout + ran.stderr
    assert heads.current(states.head) == ray_head, "a head that was there before must stay"


@pytest.fixture(scope="module")
def states(
    ray_head: Head, shared_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[States]:
    """State folders of object store and MLflow of this module's own, which are up, beside the run's Ray head."""
    own = tmp_path_factory.mktemp("services")
    states = States(own, shared_servers.states.head)
    port = ports.choose("port", None, taken=set())
    started = run("up", f"--mlflow-port={port}", states=states)
    try:
        assert started.returncode == 0, started.stderr
        assert f"MLflow at http://127.0.0.1:{port}" in started.stdout
        assert ray_head.dashboard_url in started.stdout
        yield states
    finally:
        services.down(states=States(own, own / "no-head"))


def test_up_twice_is_harmless_and_leaves_alone_what_is_up_with_other_options(states: States) -> None:
    before = labels(states)
    again = run("up", states=states)
    assert again.returncode == 0, again.stderr
    refused = run("up", "--auth", states=states)
    assert refused.returncode == 2 and "with another setting of auth; stop it first" in refused.stderr
    assert labels(states) == before


def test_mlflow_follows_an_object_store_that_was_started_anew_and_everything_is_there(
    states: States, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    before = services.current(states=states)
    assert before.store and before.mlflow
    use_mlflow(before.mlflow, monkeypatch)
    client = MlflowClient()
    work = client.create_run("0").info
    client.log_text(work.run_id, "weights", "adapter/weights")
    client.create_registered_model("lying")
    client.create_model_version("lying", f"{work.artifact_uri}/adapter", work.run_id)
    object_store.stop(before.store, state=states.objects)
    moved = object_store.start(state=states.objects)
    assert moved.port != before.store.port
    up = run("up", states=states)
    assert up.returncode == 0, up.stderr
    after = services.current(states=states)
    assert after.mlflow and after.mlflow.s3_endpoint == moved.endpoint
    assert after.mlflow.port == before.mlflow.port
    version = client.get_model_version("lying", "1")
    back = client.download_artifacts(version.run_id, "adapter/weights", str(tmp_path))
    assert Path(back).read_text() == "weights"
    found = exported(run("env", states=states).stdout, os.environ)
    assert found.items() >= {**moved.environment, **after.mlflow.environment}.items()


def test_down_stops_what_runs_and_keeps_the_data(states: States, ray_head: Head) -> None:
    running = services.current(states=states)
    assert running.store and running.mlflow and running.head == ray_head
    without_head = States(states.servers, states.servers / "no-head")
    stopped = run("down", states=without_head)
    assert stopped.returncode == 0 and f"data kept in {states.servers}" in stopped.stdout
    assert not any(each.find() for each in (running.mlflow.processes, *map(running.store.processes, SERVERS)))
    assert run("down", states=without_head).returncode == 0
    status = run("status", states=states)
    assert status.returncode == 3 and "MLflow is not running" in status.stdout
    assert run("env", states=states).returncode == 3


def test_an_up_that_fails_stops_what_it_had_started(tmp_path: Path) -> None:
    states = States(tmp_path / "servers", tmp_path / "head")
    try:
        with socket.create_server((ports.LOOPBACK, 0)) as other:
            port = other.getsockname()[1]
            failed = run("up", f"--mlflow-port={port}", states=states)
        assert failed.returncode == 2 and f"port {port} is taken on 127.0.0.1" in failed.stderr
        assert services.current(states=states) == Services(None, None, None)
        assert (states.objects / "logs" / "proxy.log").exists(), "it had been started"
    finally:
        services.down(states=states)


@pytest.mark.slow
def test_a_machine_whose_servers_are_stopped_and_started_has_what_its_jobs_registered(tmp_path: Path) -> None:
    """Everything by processes of its own, as a user runs it."""
    states = States(tmp_path / "servers", tmp_path / "head")
    environment = without_registries(tmp_path)
    folders = (f"--state={states.servers}", f"--head-state={states.head}")
    port = ports.choose("port", None, taken=set())
    try:
        python("-m", "cluster.services", "up", f"--mlflow-port={port}", *folders, environment=environment)
        run_job = ("-m", "cluster.local", "run", f"--state={states.head}", f"--services={states.servers}")
        ran = python(*run_job, "--", "python", "-c", REGISTER, "lying", environment=environment)
        assert "registered 1\n" in ran.stdout, ran.stdout + ran.stderr
        before = services.current(states=states)
        assert before.store and before.mlflow and before.head
        python("-m", "cluster.services", "down", *folders, environment=environment)
        of_stores = map(before.store.processes, SERVERS)
        assert not any(each.find() for each in (before.mlflow.processes, before.head.processes, *of_stores))
        python("-m", "cluster.services", "up", *folders, environment=environment)
        printed = python("-m", "cluster.services", "env", *folders, environment=environment)
        read = python("-c", READ, "lying", environment=exported(printed.stdout, environment))
        assert read.stdout == "weights\n"
    finally:
        services.down(states=states)


def python(*arguments: str, environment: Mapping[str, str]) -> CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended
