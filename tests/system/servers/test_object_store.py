"""The object store as a user runs it: started, used, started again after a kill, stopped, and nothing left of it."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from cluster import object_store as stores
from cluster import ports
from cluster.object_store import ObjectStore
from cluster.object_store_configuration import SERVERS
from corrector.errors import UserError
from tests.support import commands
from tests.support.servers import use_object_store
from tests.support.shell import exported
from tests.support.waiting import wait_until

LIMIT_S = 120
"""For each wait, of which none takes 10 s where the machine has nothing else to do."""


def run(command: str, *options: str, state: Path) -> CompletedProcess[str]:
    """`python -m cluster.object_store COMMAND`."""
    return commands.run(stores.main, command, f"--state={state}", *options)


def servers(store: ObjectStore) -> list[psutil.Process]:
    return [process for server in SERVERS for process in store.processes(server).find()]


def client(store: ObjectStore, *, secret_key: str | None = None) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=secret_key or store.secret_key,
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a store of this module's own, which runs when a test begins."""
    state = tmp_path_factory.mktemp("own") / "object store 100%"
    yield state
    if (left := stores.current(state)) is not None:
        stores.stop(left, state=state)


@pytest.fixture
def own(state: Path) -> ObjectStore:
    """The store of `state`."""
    return stores.current(state) or started(state, f"--port={ports.choose('port', None, taken=set())}")


def started(state: Path, *options: str) -> ObjectStore:
    answer = run("start", *options, state=state)
    assert answer.returncode == 0, answer.stderr
    store = stores.current(state)
    assert store is not None and store.endpoint in answer.stdout
    return store


def test_a_second_start_shows_the_running_store_unless_it_wants_another_port(
    own: ObjectStore, state: Path, tmp_path: Path
) -> None:
    assert started(state, f"--port={own.port}") == own
    assert len(servers(own)) == len(SERVERS)
    elsewhere = run("start", f"--port={own.port + 1}", state=state)
    assert elsewhere.returncode == 2 and f"is running already, at {own.endpoint}" in elsewhere.stderr
    second = run("start", f"--port={own.port}", state=tmp_path)
    assert second.returncode == 2 and f"port {own.port} is taken on 127.0.0.1 by python" in second.stderr


def test_it_listens_on_the_loopback_interface_only(object_store: ObjectStore) -> None:
    for process in servers(object_store):
        listening = [c for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
        assert [connection.laddr.ip for connection in listening] == [ports.LOOPBACK]


def test_signatures_are_checked(object_store: ObjectStore) -> None:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as refused:
        client(object_store, secret_key="0" * 40).list_buckets()
    assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_presigned_urls_work_and_expire(object_store: ObjectStore) -> None:
    s3 = client(object_store)
    place = {"Bucket": f"presigned-{secrets.token_hex(6)}", "Key": "a"}
    s3.create_bucket(Bucket=place["Bucket"])
    s3.put_object(**place, Body=b"content")
    valid = s3.generate_presigned_url("get_object", Params=place)
    short = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=1)
    assert fetched(valid) == (200, b"content")
    wait_until(lambda: fetched(short) != (200, b"content"))
    assert fetched(short)[0] == 403
    assert fetched(valid.partition("?")[0])[0] == 400, "without a signature"


def fetched(url: str) -> tuple[int, bytes]:
    """Status and content of the answer to a GET."""
    try:
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def test_what_env_prints_leads_any_s3_program_there(own: ObjectStore, state: Path) -> None:
    elsewhere = {"AWS_PROFILE": "another", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
    found = exported(run("env", state=state).stdout, {**os.environ, **elsewhere})
    assert found.items() >= own.environment.items()
    assert not set(stores.CONFLICTING_VARIABLES) & set(found)


@pytest.mark.usefixtures("own")
def test_only_the_owner_reads_the_keys(state: Path) -> None:
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "keys.json").stat().st_mode) == 0o600
    with_secret = [
        file for file in state.rglob("*") if file.is_file() and secret_of(state) in file.read_bytes()
    ]
    assert sorted(file.name for file in with_secret) == ["keys.json", "proxy.conf"]
    assert stat.S_IMODE((state / "conf" / "proxy.conf").stat().st_mode) == 0o600


def secret_of(state: Path) -> bytes:
    return json.loads((state / "keys.json").read_text())["secret_key"].encode()


def test_a_store_that_lost_a_server_is_started_anew_and_lists_what_it_had_taken(
    own: ObjectStore, state: Path
) -> None:
    s3 = client(own)
    s3.create_bucket(Bucket="adapters")
    s3.put_object(Bucket="adapters", Key="entered", Body=b"before")
    url = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": "adapters", "Key": "lying"}))
    writing = http.client.HTTPConnection(url.netloc, timeout=LIMIT_S)
    writing.putrequest("PUT", f"{url.path}?{url.query}")
    writing.putheader("Content-Length", "7")
    writing.putheader(
        "Expect", "100-continue"
    )  # the proxy answers once the object server waits for the content
    writing.endheaders()
    assert writing.sock.recv(100).startswith(b"HTTP/1.1 100 ")
    writing.send(b"wei")
    (buckets,) = own.processes("container").find()
    buckets.kill()
    writing.send(b"ghts")
    assert writing.getresponse().status == 200
    assert stores.current(state) is None
    assert servers(own) == []
    after = started(state)
    assert (after.access_key, after.secret_key) == (own.access_key, own.secret_key)
    again = client(after)
    assert [entry["Key"] for entry in again.list_objects_v2(Bucket="adapters")["Contents"]] == [
        "entered",
        "lying",
    ]
    assert again.get_object(Bucket="adapters", Key="entered")["Body"].read() == b"before"
    assert again.get_object(Bucket="adapters", Key="lying")["Body"].read() == b"weights"


def test_pyarrow_reads_and_writes_it(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pyarrow import fs

    use_object_store(object_store, monkeypatch, tmp_path)
    bucket = f"checkpoints-{secrets.token_hex(6)}"
    client(object_store).create_bucket(Bucket=bucket)
    filesystem, root = fs.FileSystem.from_uri(f"s3://{bucket}/run")
    filesystem.create_dir(f"{root}/step-1")
    with filesystem.open_output_stream(f"{root}/step-1/state.bin") as stream:
        stream.write(b"state")
    found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    assert [(entry.path, entry.size) for entry in found if entry.is_file] == [(f"{root}/step-1/state.bin", 5)]
    with filesystem.open_input_file(f"{root}/step-1/state.bin") as stream:
        assert stream.read() == b"state"
    filesystem.delete_dir(root)
    assert client(object_store).list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_deleting_a_large_object_frees_its_parts(own: ObjectStore, state: Path, tmp_path: Path) -> None:
    s3 = client(own)
    (tmp_path / "large").write_bytes(os.urandom(9 * 1024**2))
    s3.create_bucket(Bucket="large")
    s3.upload_file(str(tmp_path / "large"), "large", "object")
    assert s3.head_object(Bucket="large", Key="object")["ETag"].endswith('-2"')
    s3.delete_object(Bucket="large", Key="object")
    assert sum(file.stat().st_size for file in (state / "data").rglob("*.data")) < 1024**2


def test_a_server_that_does_not_start_in_time_is_named_with_its_log_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=r"server was not ready within 0 s; the end of its log \(.*\.log\)"):
        stores.start(state=tmp_path, start_limit_s=0)
    assert stores.current(tmp_path) is None
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])
    ]


def test_stopping_twice_is_harmless_and_leaves_nothing(own: ObjectStore, state: Path) -> None:
    assert "4 processes ended" in run("stop", state=state).stdout
    assert servers(own) == []
    assert run("stop", state=state).returncode == 0
    assert run("status", state=state).returncode == 3
    assert run("env", state=state).returncode == 3
