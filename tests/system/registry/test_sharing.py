"""A URL of a version's weights, signed for a while: the right bytes, from a real S3 server, and nothing else."""

from __future__ import annotations

import hashlib
import re
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from uuid import uuid4

import pytest
import requests
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.tracking import MlflowClient

from cluster import mlflow_server as servers
from cluster import ports
from cluster.mlflow_server import MlflowOptions, MlflowServer
from corrector.errors import UserError
from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import Reference, RegistryError, local_uri, register
from corrector.registry.__main__ import main
from corrector.registry.sharing import share
from tests.support.racing import NOWHERE
from tests.support.records import small_adapter, write_record
from tests.support.registering import PERSON
from tests.support.servers import use_mlflow

SHARED = "shared"


def record(folder: Path, name: str) -> Path:
    adapter = small_adapter(name)
    write_record(folder, PERSON, pairs=2, guard_images=1, steps=10, name=name, work_id=name, adapter=adapter)
    return folder


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
        return content


@pytest.fixture
def uri(mlflow_server: MlflowServer, s3: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow server through which artifacts go to S3, for which the AWS variables are set."""
    use_mlflow(mlflow_server, monkeypatch)
    return mlflow_server.tracking_uri


@pytest.fixture(scope="module")
def weights(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Those of SHARED's only version, which is registered once."""
    folder = record(tmp_path_factory.mktemp("shared") / "r", SHARED)
    with pytest.MonkeyPatch.context() as patch:
        use_mlflow(mlflow_server, patch)
        register(folder, tracking_uri=mlflow_server.tracking_uri, root=NOWHERE)
    return (folder / "adapter" / WEIGHTS_FILE).read_bytes()


def test_anybody_can_fetch_the_weights_with_the_url_alone(
    uri: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = datetime.now(UTC)
    shared = share(
        Reference.parse(f"{SHARED}@candidate"),
        tracking_uri=uri,
        root=NOWHERE,
        lifetime=timedelta(minutes=5),
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    content = get(shared.url)
    assert content == weights
    assert hashlib.sha256(content).hexdigest() == shared.sha256
    assert shared.version == f"{SHARED}/1"
    assert timedelta(seconds=298) < shared.expires - before < timedelta(seconds=330)
    assert shared.url not in repr(shared)


def test_the_url_is_good_for_that_object_and_for_reading_only(uri: str, weights: bytes) -> None:
    shared = share(Reference(SHARED, "1"), tracking_uri=uri, root=NOWHERE)
    signature = re.search(r"X-Amz-Signature=([0-9a-f]{64})", shared.url)
    assert signature is not None
    refused_requests: list[str | urllib.request.Request] = [
        shared.url.replace(signature[1], "0" * 64),
        shared.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=36000"),
        shared.url.replace(WEIGHTS_FILE, "adapter_config.json"),
        shared.url.partition("?")[0],
        urllib.request.Request(shared.url, data=b"other", method="PUT"),
        urllib.request.Request(shared.url, method="DELETE"),
    ]
    for request in refused_requests:
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code in (400, 403)  # 400: no signature at all
    assert hashlib.sha256(get(shared.url)).hexdigest() == shared.sha256


def test_an_expired_url_is_refused(uri: str, weights: bytes) -> None:
    shared = share(Reference(SHARED, "1"), tracking_uri=uri, root=NOWHERE, lifetime=timedelta(seconds=1))

    def get_until_refused() -> None:
        while datetime.now(UTC) < shared.expires + timedelta(seconds=60):
            get(shared.url)
            time.sleep(0.1)

    with pytest.raises(HTTPError) as refused:
        get_until_refused()
    assert refused.value.code == 403
    assert datetime.now(UTC) >= shared.expires


def test_the_command_prints_url_digest_and_expiry(
    uri: str, weights: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["share", f"{SHARED}/1", "--minutes", "1"]) == 0
    url, digest, expiry = capsys.readouterr().out.splitlines()
    assert "X-Amz-Expires=60&" in url
    assert digest == f"{SHARED}/1, SHA-256 {hashlib.sha256(get(url)).hexdigest()}"
    assert re.match(r"expires \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC;", expiry)


def test_without_credentials_nothing_is_shared(
    uri: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        share(Reference(SHARED, "1"), tracking_uri=uri, root=NOWHERE)


def test_credentials_that_s3_refuses_are_named(
    uri: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    with pytest.raises(UserError, match=r"s3://mlflow/.*its secret is wrong"):
        share(Reference(SHARED, "1"), tracking_uri=uri, root=NOWHERE)


def test_bytes_that_are_not_the_registered_ones_are_not_shared(uri: str, weights: bytes, s3: Any) -> None:
    run = MlflowClient(uri, uri).get_model_version(SHARED, "1").run_id
    address = MlflowClient(uri, uri).get_run(run).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    key = f"{address}/model/adapter_weights/{WEIGHTS_FILE}"
    s3.put_object(Bucket="mlflow", Key=key, Body=b"something else")
    try:
        with pytest.raises(RegistryError, match=f"{SHARED}/1: the SHA-256 of s3://mlflow/.* not shared"):
            share(Reference(SHARED, "1"), tracking_uri=uri, root=NOWHERE)
    finally:
        s3.put_object(Bucket="mlflow", Key=key, Body=weights)


def test_weights_that_clients_write_to_s3_themselves_are_shared_too(
    root: Path, s3: Any, tmp_path: Path
) -> None:
    bucket = f"direct-{uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    uri = local_uri(root)
    MlflowClient(uri, uri).create_experiment("corrections", artifact_location=f"s3://{bucket}/artifacts")
    register(record(tmp_path / "r", "direct"), tracking_uri=uri, root=NOWHERE)
    shared = share(Reference("direct", "1"), tracking_uri=uri, root=NOWHERE)
    assert hashlib.sha256(get(shared.url)).hexdigest() == shared.sha256


def test_weights_of_which_a_server_gives_no_address_cannot_be_shared(
    uri: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is the edge of the world here: it answers so where it keeps artifacts in a folder, see the next test."""
    answer = requests.Response()
    answer.status_code = HTTPStatus.NOT_IMPLEMENTED

    def refuse(*_: Any) -> None:
        raise requests.HTTPError(response=answer)

    monkeypatch.setattr(HttpArtifactRepository, "_get_presigned_download_url", refuse)
    with pytest.raises(RegistryError, match=f"{SHARED}/1: the server keeps its weights elsewhere than in S3"):
        share(Reference(SHARED, "1"), tracking_uri=uri, root=NOWHERE)


@pytest.mark.slow
def test_weights_in_a_servers_folder_cannot_be_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = ports.choose("port", None, taken=set())
    options = MlflowOptions(port=port, artifacts=str(tmp_path / "artifacts"))
    server = servers.start(options, state=tmp_path / "state")
    try:
        use_mlflow(server, monkeypatch)
        register(record(tmp_path / "r", "elsewhere"), tracking_uri=server.tracking_uri, root=NOWHERE)
        with pytest.raises(
            RegistryError, match="elsewhere/1: the server keeps its weights elsewhere than in S3"
        ):
            share(Reference("elsewhere", "1"), tracking_uri=server.tracking_uri, root=NOWHERE)
    finally:
        servers.stop(server, state=tmp_path / "state")
