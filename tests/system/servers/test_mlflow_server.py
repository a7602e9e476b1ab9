"""The MLflow server as a user runs it: what it lets in, what it keeps, and how it ends."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import queue
import sqlite3
import stat
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest

from cluster import mlflow_server as servers
from cluster import ports
from cluster.mlflow_server import MlflowOptions, MlflowServer
from cluster.object_store import ObjectStore
from corrector.errors import UserError
from tests.support import commands
from tests.support.servers import SharedServers, use_mlflow, use_object_store
from tests.support.shell import exported
from tests.support.waiting import wait_until

LIMIT_S = 120
"""For each answer, of which none takes 10 s where the machine has nothing else to do."""


def run(command: str, *options: str, state: Path) -> CompletedProcess[str]:
    """`python -m cluster.mlflow_server COMMAND`."""
    return commands.run(servers.main, command, f"--state={state}", *options)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "MLflow 100%"


@pytest.fixture(scope="module")
def guarded(
    object_store: ObjectStore,
    shared_servers: SharedServers,
    state: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MlflowServer]:
    """A server with options of every kind, which holds the model "lying", of one version."""
    port = ports.choose("port", None, taken=set())
    database = f"sqlite:///{tmp_path_factory.mktemp('database') / 'elsewhere.db'}"
    options = ("--auth", f"--port={port}", f"--backend-store-uri={database}")
    started = run("start", *options, f"--objects={shared_servers.states.objects}", state=state)
    assert started.returncode == 0, started.stderr
    server = servers.current(state)
    assert server is not None and server.tracking_uri in started.stdout
    assert server.s3_endpoint == object_store.endpoint
    try:
        call(server, "mlflow/registered-models/create", {"name": "lying"}, as_user=admin(server))
        work = call(server, "mlflow/runs/create", {"experiment_id": "0"}, as_user=admin(server))["run"][
            "info"
        ]
        version = {"name": "lying", "source": f"{work['artifact_uri']}/adapter", "run_id": work["run_id"]}
        call(server, "mlflow/model-versions/create", version, as_user=admin(server))
        yield server
    finally:
        if (left := servers.current(state)) is not None:
            servers.stop(left, state=state)


def admin(server: MlflowServer) -> tuple[str, str]:
    assert server.password is not None
    return "admin", server.password


def basic(user: tuple[str, str]) -> str:
    return f"Basic {base64.b64encode(':'.join(user).encode()).decode()}"


def call(
    server: MlflowServer,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    method: str | None = None,
    as_user: tuple[str, str] | None = None,
    host: str | None = None,
) -> dict[str, Any]:
    """The answer of MLflow's REST interface: to a GET, or where there is a `body`, to a POST."""
    request = urllib.request.Request(
        f"{server.tracking_uri}/api/2.0/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    if as_user is not None:
        request.add_header("Authorization", basic(as_user))
    if host is not None:
        request.add_header("Host", host)
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return json.loads(answer.read() or b"{}")


def refusal(server: MlflowServer, *arguments: Any, **options: Any) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        call(server, *arguments, **options)
    return refused.value.code


def test_it_is_one_process_that_listens_on_the_loopback_interface_only(mlflow_server: MlflowServer) -> None:
    (process,) = mlflow_server.processes.find()
    listening = {
        (c.laddr.ip, c.laddr.port)
        for c in process.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN
    }
    assert listening == {(ports.LOOPBACK, mlflow_server.port)}


def test_artifacts_go_through_it_to_the_object_store(
    mlflow_server: MlflowServer,
    object_store: ObjectStore,
    s3: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    for name in (*object_store.environment, "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name)
    use_mlflow(mlflow_server, monkeypatch)
    client = MlflowClient()
    work = client.create_run(client.create_experiment(f"artifacts of {tmp_path}"))
    (tmp_path / "weights").write_bytes(b"weights")
    client.log_artifact(work.info.run_id, str(tmp_path / "weights"))
    (entry,) = s3.list_objects_v2(Bucket="mlflow", Prefix=f"{work.info.experiment_id}/")["Contents"]
    assert entry["Key"] == f"{work.info.experiment_id}/{work.info.run_id}/artifacts/weights"
    back = Path(client.download_artifacts(work.info.run_id, "weights", str(tmp_path)))
    assert back.read_bytes() == b"weights"


def test_a_foreign_host_name_is_refused(mlflow_server: MlflowServer) -> None:
    for foreign in ("example.com", "192.168.example.com", f"127.0.0.1.example.com:{mlflow_server.port}"):
        assert refusal(mlflow_server, "mlflow/registered-models/search", host=foreign) == 403
    for ours in (f"localhost:{mlflow_server.port}", "127.0.0.1:8080", "localhost"):
        call(mlflow_server, "mlflow/registered-models/search", host=ours)


class _Received(BaseHTTPRequestHandler):
    """Keeps what webhooks deliver: headers and body."""

    deliveries: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.deliveries.put((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def listener() -> Iterator[str]:
    """URL of a server of this process that takes webhooks."""
    with ThreadingHTTPServer((ports.LOOPBACK, 0), _Received) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{ports.LOOPBACK}:{server.server_address[1]}/"
        server.shutdown()


def test_signed_webhooks_reach_this_machine_after_a_kill_too(
    guarded: MlflowServer, object_store: ObjectStore, state: Path
) -> None:
    with listener() as url:
        event = {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}
        body = {"name": "review", "url": url, "events": [event], "secret": "shared", "status": "ACTIVE"}
        call(guarded, "mlflow/webhooks", body, as_user=admin(guarded))
        kill(guarded)
        assert servers.current(state) is None
        again = servers.start(MlflowOptions(store=object_store), state=state)
        assert replace(again, label=guarded.label) == guarded, "what is left open is as it was"
        alias = {"name": "lying", "alias": "candidate", "version": "1"}
        call(again, "mlflow/registered-models/alias", alias, as_user=admin(again))
        headers, payload = _Received.deliveries.get(timeout=LIMIT_S)
    assert json.loads(payload)["data"] == alias
    signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{payload.decode()}"
    signature = base64.b64encode(hmac.new(b"shared", signed.encode(), hashlib.sha256).digest()).decode()
    assert headers["X-MLflow-Signature"] == f"v1,{signature}"


def kill(server: MlflowServer) -> None:
    for process in server.processes.find():
        process.kill()
        process.wait(LIMIT_S)


def test_nobody_comes_in_without_a_password(guarded: MlflowServer) -> None:
    assert refusal(guarded, "mlflow/registered-models/search") == 401
    assert refusal(guarded, "mlflow/registered-models/search", as_user=("admin", "password1234")) == 401
    assert refusal(guarded, "mlflow/experiments/create", {"name": "mine"}) == 401
    assert refusal(guarded, "mlflow-artifacts/artifacts/0/run/artifacts/weights") == 401
    found = call(guarded, "mlflow/registered-models/search", as_user=admin(guarded))["registered_models"]
    assert [model["name"] for model in found] == ["lying"]


def test_a_user_reads_but_neither_writes_nor_moves_an_alias(guarded: MlflowServer) -> None:
    reader = ("reader", "reads-and-no-more")
    call(
        guarded, "mlflow/users/create", {"username": reader[0], "password": reader[1]}, as_user=admin(guarded)
    )
    alias = {"name": "lying", "alias": "champion", "version": "1"}
    assert refusal(guarded, "mlflow/registered-models/alias", alias, as_user=reader) == 403
    assert (
        call(guarded, "mlflow/registered-models/get?name=lying", as_user=reader)["registered_model"]["name"]
        == "lying"
    )
    call(guarded, "mlflow/registered-models/alias", alias, as_user=admin(guarded))
    found = call(guarded, "mlflow/registered-models/alias?name=lying&alias=champion", as_user=reader)
    assert found["model_version"]["version"] == "1"


def test_what_env_prints_lets_clients_in(
    guarded: MlflowServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    own = {**os.environ, "MLFLOW_TRACKING_TOKEN": "another", "MLFLOW_REGISTRY_URI": "sqlite:///another.db"}
    found = exported(run("env", state=state).stdout, own)
    assert found.items() >= guarded.environment.items()
    assert not {"MLFLOW_TRACKING_TOKEN", "MLFLOW_REGISTRY_URI"} & set(found)
    use_mlflow(guarded, monkeypatch)
    assert [model.name for model in MlflowClient().search_registered_models()] == ["lying"]


def test_only_the_owner_reads_the_password(guarded: MlflowServer, state: Path) -> None:
    _, password = admin(guarded)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    holding = [file for file in state.iterdir() if file.is_file() and password.encode() in file.read_bytes()]
    assert [file.name for file in holding] == ["secrets.json"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert password not in repr(guarded) and password not in run("status", state=state).stdout


def test_a_second_start_shows_the_running_server_unless_it_wants_another(
    guarded: MlflowServer, state: Path, tmp_path: Path
) -> None:
    again = run("start", f"--objects={tmp_path}", state=state)
    assert again.returncode == 0 and guarded.tracking_uri in again.stdout, again.stderr
    for option, name in (
        (f"--port={guarded.port + 1}", "port"),
        ("--no-auth", "setting of auth"),
        ("--backend-store-uri=postgresql://mlflow:hidden@127.0.0.1/mlflow", "database"),
        ("--artifacts-destination=s3://elsewhere", "artifacts destination"),
    ):
        refused = run("start", option, f"--objects={tmp_path}", state=state)
        assert refused.returncode == 2 and f"with another {name}; stop it first" in refused.stderr
        assert "hidden" not in refused.stderr


def test_artifacts_need_a_place(
    tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = run("start", f"--objects={tmp_path / 'none'}", state=tmp_path / "state")
    assert nowhere.returncode == 2 and "no object store is running" in nowhere.stderr
    use_object_store(object_store, monkeypatch, tmp_path)
    port = f"--port={ports.choose('port', None, taken=set())}"
    missing = run("start", port, "--artifacts-destination=s3://nobody-made-it", state=tmp_path / "state")
    assert missing.returncode == 2
    assert (
        f"s3://nobody-made-it at {object_store.endpoint}" in missing.stderr
        and "NoSuchBucket" in missing.stderr
    )
    assert run("status", state=tmp_path / "state").returncode == 3


def test_a_database_of_another_version_is_named_with_the_remedy(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    copy = tmp_path / "mlflow.db"
    with (
        closing(sqlite3.connect(mlflow_server.database.removeprefix("sqlite:///"))) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        target.commit()
    port = f"--port={ports.choose('port', None, taken=set())}"
    refused = run("start", port, f"--artifacts-destination={tmp_path}", state=tmp_path)
    assert refused.returncode == 2
    assert f"sqlite:///{copy}: written by another version of MLflow" in refused.stderr
    assert f"`mlflow db upgrade 'sqlite:///{copy}'`" in refused.stderr
    assert servers.current(tmp_path) is None


def test_a_server_that_is_not_ready_in_time_leaves_its_log_and_nothing_else(tmp_path: Path) -> None:
    port = ports.choose("port", None, taken=set())
    with pytest.raises(
        UserError, match=r"MLflow server was not ready within 0 s; the end of its log \(.*\.log\)"
    ):
        servers.start(MlflowOptions(port=port, artifacts=str(tmp_path), start_limit_s=0), state=tmp_path)
    assert servers.current(tmp_path) is None
    assert not [p for p in psutil.process_iter(["cmdline"]) if f"--port={port}" in (p.info["cmdline"] or [])]


def test_stopping_lets_an_upload_under_way_end_and_leaves_nothing(
    guarded: MlflowServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "GRACE_S", float(LIMIT_S))
    server = servers.current(state)
    assert server is not None and server.port == guarded.port
    uploading = http.client.HTTPConnection(ports.LOOPBACK, server.port, timeout=LIMIT_S)
    uploading.putrequest("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts/weights")
    uploading.putheader("Authorization", basic(admin(server)))
    uploading.putheader("Content-Length", "7")
    uploading.putheader("Expect", "100-continue")  # the server answers once it reads the content
    uploading.endheaders()
    assert uploading.sock.recv(100).startswith(b"HTTP/1.1 100 ")
    uploading.send(b"wei")
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(run, "stop", state=state)
        wait_until(lambda: ports.is_free(server.port) or stopping.done())
        uploading.send(b"ghts")
        assert uploading.getresponse().status == 200
        stopped = stopping.result(LIMIT_S)
    assert f"stopped the MLflow server at {server.tracking_uri}" in stopped.stdout
    assert server.processes.find() == []
    assert run("stop", state=state).returncode == 0
    assert run("status", state=state).returncode == 3
    assert run("env", state=state).returncode == 3
