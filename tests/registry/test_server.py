"""The same against a real MLflow server, whose artifacts lie on a real S3 server: what works there, and what fails clearly."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any
from uuid import uuid4

import boto3
import pytest
from mlflow.entities.webhook import WebhookEvent
from mlflow.store.artifact import s3_artifact_repo
from mlflow.tracking import MlflowClient

from cluster import ports
from cluster.mlflow_configuration import WEBHOOK_CACHE_S
from cluster.mlflow_server import MlflowServer
from cluster.object_store import ObjectStore
from corrector.registry import RegisteredVersion, RegistryError, fetch, local_uri, register
from corrector.registry.collect import collect
from corrector.registry.events import WEBHOOK_EVENTS, Deliveries, Event, verify_webhook
from corrector.registry.history import history
from corrector.registry.listing import list_models
from corrector.registry.record import WEIGHTS_FILE, file_sha256
from corrector.registry.review import promote, rollback
from corrector.registry.verify import verify
from tests import object_store as stores
from tests.mlflow_server import use
from tests.registry.conftest import PERSON
from tests.registry.racing import NOWHERE
from tests.registry.records import small_adapter, write_record

SECRET = "correct horse battery staple"


@pytest.fixture
def uri(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's address; MLflow's variables point there."""
    use(mlflow_server, monkeypatch)
    return mlflow_server.tracking_uri


def record(folder: Path, name: str, seed: int = 1) -> Path:
    write_record(
        folder, PERSON, pairs=2, guard_images=1, steps=10, name=name, work_id=f"{name}-{seed}",
        adapter=small_adapter(f"{name}{seed}"),
    )  # fmt: skip
    return folder


def registered(folder: Path, uri: str) -> RegisteredVersion:
    return register(folder, tracking_uri=uri, root=NOWHERE)


def test_an_adapter_goes_to_s3_through_the_server_and_comes_back(uri: str, tmp_path: Path) -> None:
    folder = record(tmp_path / "r", "there-and-back")
    version = registered(folder, uri)
    assert (version.version, version.aliases) == ("1", ("candidate",))
    assert registered(folder, uri) == version
    here = fetch(version.name, "candidate", tmp_path / "here", tracking_uri=uri, root=NOWHERE)
    assert file_sha256(here / WEIGHTS_FILE) == version.sha256
    assert [checked.problem for checked in verify([version.name], tracking_uri=uri, root=NOWHERE)] == [None]


def test_reviews_are_kept_by_the_server_and_moves_by_hand_are_seen(uri: str, tmp_path: Path) -> None:
    place: dict[str, Any] = {"tracking_uri": uri, "root": NOWHERE}
    for seed in (1, 2):
        registered(record(tmp_path / str(seed), "reviewed", seed), uri)
    promote("reviewed", 1, who="Ada", **place)
    MlflowClient(uri, uri).set_registered_model_alias("reviewed", "champion", "2")
    assert history("reviewed", **place)[-1].action == "moved"
    assert rollback("reviewed", who="Bob", why="third legs", **place).version == "1"
    (listed,) = list_models(containing="reviewed", **place).models
    assert listed.aliases == {"candidate": "2", "champion": "1"}
    assert [entry.who for entry in history("reviewed", **place)][-1] == "Bob"


class _Receiver(BaseHTTPRequestHandler):
    """Answers every request, the first ones with the `refusals`, and keeps what it brought."""

    received: Queue[tuple[dict[str, str], bytes]]
    refusals: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.put((dict(self.headers), body))
        self.send_response(self.refusals.pop() if self.refusals else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[tuple[str, Queue[tuple[dict[str, str], bytes]]]]:
    """The address of a small web server, and what it receives."""
    _Receiver.received, _Receiver.refusals = Queue(), []
    server = HTTPServer(("127.0.0.1", 0), _Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/events", _Receiver.received
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_move_by_hand_arrives_as_a_signed_webhook(
    uri: str, tmp_path: Path, receiver: tuple[str, Queue[tuple[dict[str, str], bytes]]]
) -> None:
    address, received = receiver
    client = MlflowClient(uri, uri)
    hook = client.create_webhook(
        "test", address, [WebhookEvent.from_str(event) for event in WEBHOOK_EVENTS], secret=SECRET
    )
    time.sleep(WEBHOOK_CACHE_S + 0.5)  # for so long the server goes on with the webhooks that it knew
    try:
        registered(record(tmp_path / "r", "told"), uri)
        client.set_registered_model_alias("told", "champion", "1")
        events: list[Event] = []
        while len(events) < 3:
            event = verify_webhook(*received.get(timeout=30), SECRET)
            assert event is not None
            events.append(event)
    finally:
        client.delete_webhook(hook.webhook_id)
    assert {(event.kind, event.name, event.alias, event.version) for event in events} == {
        ("version registered", "told", None, "1"),
        ("alias set", "told", "candidate", "1"),
        ("alias set", "told", "champion", "1"),
    }


def test_a_delivery_that_mlflow_repeats_is_recognised(
    uri: str, tmp_path: Path, receiver: tuple[str, Queue[tuple[dict[str, str], bytes]]]
) -> None:
    address, received = receiver
    _Receiver.refusals = [503]
    client = MlflowClient(uri, uri)
    hook = client.create_webhook("test", address, [WebhookEvent.from_str(WEBHOOK_EVENTS[0])], secret=SECRET)
    time.sleep(WEBHOOK_CACHE_S + 0.5)  # for so long the server goes on with the webhooks that it knew
    deliveries = Deliveries()
    try:
        registered(record(tmp_path / "r", "told-twice"), uri)
        events = [verify_webhook(*received.get(timeout=30), SECRET) for _ in range(2)]
    finally:
        client.delete_webhook(hook.webhook_id)
    assert events[0] is not None and events[0] == events[1]
    assert [deliveries.add(event) for event in events if event] == [True, False]


def test_a_registry_that_is_down_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    nobody = f"http://user:hidden@127.0.0.1:{ports.choose('port', None, taken=set())}"
    folder = record(tmp_path / "r", "down")
    for attempt in (
        lambda: registered(folder, nobody),
        lambda: fetch("down", 1, tmp_path / "here", tracking_uri=nobody, root=NOWHERE),
    ):
        with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1") as caught:
            attempt()
        assert "hidden" not in str(caught.value)
    assert not (tmp_path / "here").exists()


@pytest.fixture
def direct(root: Path, s3: Any) -> str:
    """A registry whose clients write to S3 themselves."""
    bucket = f"direct-{uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    uri = local_uri(root)
    client = MlflowClient(uri, uri)
    client.create_experiment("corrections", artifact_location=f"s3://{bucket}/artifacts")
    return uri


def _forget_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow and boto3 read the AWS variables again, as a new process does."""
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch|Forbidden|AccessDenied"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "endpoint URL"),
    ],
    ids=["denied", "down"],
)
def test_s3_that_fails_leaves_no_version_and_the_next_attempt_succeeds(
    direct: str, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch,
    variable: str, value: str, expected: str,
) -> None:  # fmt: skip
    folder = record(tmp_path / "r", "direct")
    _forget_s3(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        with pytest.raises(RegistryError, match=expected):
            registered(folder, direct)
    assert list_models(tracking_uri=direct, root=NOWHERE).models == ()
    _forget_s3(monkeypatch)
    stores.use(object_store, monkeypatch, tmp_path)
    version = registered(folder, direct)
    assert fetch(version.name, 1, tmp_path / "here", tracking_uri=direct, root=NOWHERE).is_dir()
    left = collect(tracking_uri=direct, root=NOWHERE, older_than=timedelta(0), delete=True)
    assert [garbage.kind for garbage in left] == ["run"]
    assert verify(tracking_uri=direct, root=NOWHERE)[0].problem is None


def test_a_full_disk_in_the_middle_leaves_no_version(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record(tmp_path / "r", "full")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "artifacts")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", full)
        with pytest.raises(RegistryError, match="No space left on device; make room"):
            register(folder, tracking_uri=None, root=root)
    assert list_models(tracking_uri=None, root=root).models == ()
    assert register(folder, tracking_uri=None, root=root).version == "1"
