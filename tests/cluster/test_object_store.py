"""The object store as a user runs it: started, used, stopped, started again, and nothing left of it."""

from __future__ import annotations

import http.client
import json
import os
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from cluster import object_store as stores
from cluster import ports, processes
from cluster.object_store import ObjectStore
from cluster.object_store_configuration import SERVERS
from corrector.errors import UserError
from tests.object_store import run, use

LIST_BUCKETS = """
import boto3
print(*(bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]))
"""


def servers(store: ObjectStore) -> list[psutil.Process]:
    return [process for server in SERVERS for process in processes.find(store.signs(server))]


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
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One that runs throughout, for what leaves it as it was."""
    state = tmp_path_factory.mktemp("object-store")
    store = started(state)
    yield store
    stores.stop(store, state=state)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose store, if any, is stopped in the end."""
    state = tmp_path / "object store 100%"
    yield state
    if (left := stores.current(state)) is not None:
        stores.stop(left, state=state)


def started(state: Path, *options: str) -> ObjectStore:
    answer = run("start", *options, state=state)
    assert answer.returncode == 0, answer.stderr
    store = stores.current(state)
    assert store is not None and store.endpoint in answer.stdout
    return store


def test_what_it_holds_is_there_again_after_a_restart(state: Path) -> None:
    before = started(state)
    client(before).create_bucket(Bucket="adapters")
    client(before).put_object(Bucket="adapters", Key="lying/1", Body=b"weights")
    assert run("stop", state=state).returncode == 0
    after = started(state)
    assert (after.access_key, after.secret_key) == (before.access_key, before.secret_key)
    assert client(after).get_object(Bucket="adapters", Key="lying/1")["Body"].read() == b"weights"
    assert client(after).list_objects_v2(Bucket="adapters")["KeyCount"] == 1


def test_starting_and_stopping_twice_is_harmless(state: Path) -> None:
    first = started(state)
    assert started(state) == first
    assert len(servers(first)) == len(SERVERS)
    assert "4 processes ended" in run("stop", state=state).stdout
    assert servers(first) == []
    assert run("stop", state=state).returncode == 0
    assert run("status", state=state).returncode == 3
    assert run("env", state=state).returncode == 3


def test_the_wanted_port_is_taken_or_refused_by_name(state: Path, tmp_path: Path) -> None:
    port = ports.choose("port", None, taken=set())
    store = started(state, f"--port={port}")
    assert store.port == port
    second = run("start", f"--port={port}", state=tmp_path / "second")
    assert second.returncode == 2 and f"port {port} is taken on 127.0.0.1 by python" in second.stderr
    elsewhere = run("start", f"--port={port + 1}", state=state)
    assert elsewhere.returncode == 2 and f"is running already, at {store.endpoint}" in elsewhere.stderr


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
    s3.create_bucket(Bucket="presigned")
    s3.put_object(Bucket="presigned", Key="a", Body=b"content")
    place = {"Bucket": "presigned", "Key": "a"}
    short = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=1)
    with urllib.request.urlopen(s3.generate_presigned_url("get_object", Params=place), timeout=30) as answer:
        assert answer.read() == b"content"
    time.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError) as expired:
        urllib.request.urlopen(short, timeout=30)
    assert expired.value.code == 403
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(short.partition("?")[0], timeout=30)


def test_what_env_prints_leads_any_s3_program_there(state: Path) -> None:
    client(started(state)).create_bucket(Bucket="adapters")
    ran = subprocess.run(
        ["sh", "-c", f'{run("env", state=state).stdout}\n"$0" -c "$1"', sys.executable, LIST_BUCKETS],
        env={**os.environ, "AWS_PROFILE": "another", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == "adapters\n", ran.stderr


def test_only_the_owner_reads_the_keys(state: Path) -> None:
    started(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "keys.json").stat().st_mode) == 0o600
    with_secret = [
        file for file in state.rglob("*") if file.is_file() and secret_of(state) in file.read_bytes()
    ]
    assert sorted(file.name for file in with_secret) == ["keys.json", "proxy.conf"]
    assert stat.S_IMODE((state / "conf" / "proxy.conf").stat().st_mode) == 0o600


def secret_of(state: Path) -> bytes:
    return json.loads((state / "keys.json").read_text())["secret_key"].encode()


def test_a_store_that_lost_a_server_is_started_anew_and_lists_what_it_had_taken(state: Path) -> None:
    store = started(state)
    s3 = client(store)
    s3.create_bucket(Bucket="adapters")
    url = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": "adapters", "Key": "lying"}))
    writing = http.client.HTTPConnection(url.netloc, timeout=60)
    writing.putrequest("PUT", f"{url.path}?{url.query}")
    writing.putheader("Content-Length", "7")
    writing.endheaders(b"wei")
    (holding,) = processes.find(store.signs("object"))
    await_caller(holding)
    (buckets,) = processes.find(store.signs("container"))
    buckets.kill()
    writing.send(b"ghts")
    assert writing.getresponse().status == 200
    assert stores.current(state) is None
    assert servers(store) == []
    again = client(started(state))
    assert [entry["Key"] for entry in again.list_objects_v2(Bucket="adapters")["Contents"]] == ["lying"]
    assert again.get_object(Bucket="adapters", Key="lying")["Body"].read() == b"weights"


def await_caller(server: psutil.Process) -> None:
    deadline = time.monotonic() + 30
    while all(c.status != psutil.CONN_ESTABLISHED for c in server.net_connections(kind="tcp")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pyarrow_reads_and_writes_it(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pyarrow import fs

    use(object_store, monkeypatch, tmp_path)
    client(object_store).create_bucket(Bucket="checkpoints")
    filesystem, root = fs.FileSystem.from_uri("s3://checkpoints/run")
    filesystem.create_dir(f"{root}/step-1")
    with filesystem.open_output_stream(f"{root}/step-1/state.bin") as stream:
        stream.write(b"state")
    found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    assert [(entry.path, entry.size) for entry in found if entry.is_file] == [(f"{root}/step-1/state.bin", 5)]
    with filesystem.open_input_file(f"{root}/step-1/state.bin") as stream:
        assert stream.read() == b"state"
    filesystem.delete_dir(root)
    assert client(object_store).list_objects_v2(Bucket="checkpoints")["KeyCount"] == 0


def test_deleting_a_large_object_frees_its_parts(state: Path, tmp_path: Path) -> None:
    s3 = client(started(state))
    (tmp_path / "large").write_bytes(os.urandom(20 * 1024**2))
    s3.create_bucket(Bucket="adapters")
    s3.upload_file(str(tmp_path / "large"), "adapters", "large")
    s3.delete_object(Bucket="adapters", Key="large")
    assert sum(file.stat().st_size for file in (state / "data").rglob("*.data")) < 1024**2


def test_a_server_that_does_not_start_in_time_is_named_with_its_log_and_nothing_is_left(state: Path) -> None:
    with pytest.raises(UserError, match=r"server was not ready within 0 s; the end of its log \(.*\.log\)"):
        stores.start(state=state, start_limit_s=0)
    assert stores.current(state) is None
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(state) in " ".join(p.info["cmdline"] or [])
    ]


def test_missing_packages_are_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "swift", None)
    with pytest.raises(UserError, match="pip install swift pyeclib"):
        stores.start(state=state)
