"""The S3 policies grant what is called at a real S3 server, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from mlflow.tracking import MlflowClient

from cluster.buckets import require_bucket
from cluster.object_store import ObjectStore
from corrector import s3 as corrector_s3
from corrector.registry import Reference, local_uri, register
from corrector.registry.garbage import collect_garbage
from corrector.registry.sharing import share
from tests.support.policies import Request, allows, granted
from tests.support.records import small_adapter, write_record
from tests.support.registering import PERSON
from tests.support.s3 import upload

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}


@pytest.fixture
def requests(object_store: ObjectStore, s3: Any, monkeypatch: pytest.MonkeyPatch) -> set[Request]:
    """What boto3's clients send during the test; the buckets that the policies name are there."""
    from botocore.client import BaseClient

    for bucket in ("mlflow", "models"):
        require_bucket(f"s3://{bucket}", object_store)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", object_store.endpoint)  # MLflow keeps a client for each
    sent: set[Request] = set()
    send = BaseClient._make_api_call

    def record(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        keys = [entry["Key"] for entry in parameters.get("Delete", {}).get("Objects", [])]
        for key in keys or [parameters.get("Key")]:
            resource = f"arn:aws:s3:::{parameters['Bucket']}" + (f"/{key}" if key else "")
            sent.add(Request(ACTIONS[operation], resource, parameters.get("Prefix", "")))
        return send(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    return sent


def read_with_objects(url: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        corrector_s3.fingerprint(url)
        corrector_s3.download(url, folder / "downloaded")

    return read


def write_with_mlflow(folder: Path) -> None:
    """All that the server does to artifacts: small and large ones, in whole and in parts, and their removal."""
    artifacts = S3ArtifactRepository("s3://mlflow/1/run/artifacts")
    (folder / "small").write_bytes(b"weights")
    (folder / "large").write_bytes(os.urandom(9 * 1024**2))
    artifacts.log_artifact(str(folder / "small"), "adapter")
    artifacts.log_artifact(str(folder / "large"))
    assert {file.path for file in artifacts.list_artifacts()} == {"adapter", "large"}
    artifacts.download_artifacts("adapter/small", str(folder))
    upload = artifacts.create_multipart_upload("parts", num_parts=1)
    artifacts.abort_multipart_upload("parts", upload.upload_id)
    artifacts.delete_artifacts("adapter")
    require_bucket("s3://mlflow/1", None)


@pytest.mark.parametrize(
    ("policy", "work"),
    [
        ("registry-writer", write_with_mlflow),
        ("artifact-reader", read_with_objects("s3://mlflow/1/weights")),
        ("base-reader", read_with_objects("s3://models/bases/sd3")),
        ("base-reader", read_with_objects("s3://models/exemplars/lying/")),
    ],
    ids=["writer", "artifacts", "base", "exemplars"],
)
def test_a_policy_allows_what_is_called_and_nothing_that_is_not(
    policy: str,
    work: Callable[[Path], None],
    s3: Any,
    requests: set[Request],
    tmp_path: Path,
) -> None:
    for bucket, key in (
        ("mlflow", "1/weights/a"),
        ("models", "bases/sd3/a"),
        ("models", "exemplars/lying/a"),
    ):
        s3.put_object(Bucket=bucket, Key=key, Body=b"content")
    requests.clear()
    work(tmp_path)
    assert [request for request in requests if not allows(policy, request)] == []
    assert granted(policy) == {request.action for request in requests}


def test_a_job_writes_a_reader_shares_and_a_collector_deletes_without_a_server(
    requests: set[Request], root: Path, tmp_path: Path
) -> None:
    """Artifacts go to S3 from the clients themselves: in one part and in parts, an upload that is given up included."""
    uri = local_uri(root)
    place: dict[str, Any] = {"tracking_uri": uri, "root": root}
    client = MlflowClient(uri, uri)
    client.create_experiment("corrections", artifact_location="s3://mlflow/direct")
    records = [tmp_path / str(rank) for rank in (8, 130)]
    for record, rank in zip(records, (8, 130), strict=True):
        adapter = small_adapter("x", rank=rank, width=32 if rank == 8 else 8192)
        write_record(record, PERSON, pairs=2, guard_images=1, steps=10, name=f"of-{rank}", adapter=adapter)

    def requires(policy: str) -> None:
        assert [request for request in requests if not allows(policy, request)] == []
        assert granted(policy) == {request.action for request in requests}
        requests.clear()

    requests.clear()
    for record in records:
        register(record, **place)
    artifacts = S3ArtifactRepository("s3://mlflow/direct/run/artifacts")
    upload = artifacts.create_multipart_upload("parts", num_parts=1)
    artifacts.abort_multipart_upload("parts", upload.upload_id)
    requires("artifact-writer")
    share(Reference("of-130", "1"), **place)
    requires("artifact-reader")
    for name in ("of-8", "of-130"):
        client.delete_model_version(name, "1")
    assert len(collect_garbage(**place, older_than=timedelta(0), delete=True)) == 2
    requires("artifact-collector")


def test_who_only_reads_or_deletes_cannot_write(requests: set[Request], tmp_path: Path) -> None:
    requests.clear()
    (tmp_path / "a").write_bytes(b"content")
    upload(tmp_path / "a", "s3://mlflow/1/a")
    upload(tmp_path / "a", "s3://models/bases/a")
    assert {request.action for request in requests} == {"s3:PutObject"}
    for policy in ("artifact-reader", "base-reader", "artifact-collector"):
        assert not any(allows(policy, request) for request in requests)
