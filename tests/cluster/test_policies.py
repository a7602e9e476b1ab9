"""The S3 policies grant what is called, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cluster.buckets import require_bucket
from cluster.object_store import ObjectStore
from cluster.state import PROJECT
from corrector import objects

POLICIES = PROJECT / "cluster" / "policies"

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


class Request(NamedTuple):
    """What a policy decides about: an action on a bucket or an object, and the prefix of a listing."""

    action: str
    resource: str
    prefix: str


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


def statements(policy: str) -> list[dict[str, Any]]:
    return json.loads((POLICIES / f"{policy}.json").read_text())["Statement"]


def allows(policy: str, request: Request) -> bool:
    return any(
        request.action in statement["Action"]
        and any(fnmatchcase(request.resource, resource) for resource in statement["Resource"])
        and any(
            fnmatchcase(request.prefix, prefix)
            for prefix in statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", ["*"])
        )
        for statement in statements(policy)
    )


def granted(policy: str) -> set[str]:
    return {action for statement in statements(policy) for action in statement["Action"]}


def read_with_objects(url: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        assert objects.exists(url)
        objects.fingerprint(url)
        objects.download(url, folder / "downloaded")

    return read


def write_with_mlflow(folder: Path) -> None:
    """All that the server does to artifacts: small and large ones, in whole and in parts, and their removal."""
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

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


@pytest.mark.parametrize("policy", ["artifact-reader", "base-reader"])
def test_a_reader_cannot_write(policy: str, requests: set[Request], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    objects.upload(tmp_path / "a", "s3://mlflow/1/a")
    objects.upload(tmp_path / "a", "s3://models/bases/a")
    assert not any(allows(policy, request) for request in requests)


def test_no_policy_reaches_beyond_its_bucket_and_folders() -> None:
    for policy in ("registry-writer", "artifact-reader", "base-reader"):
        assert not allows(policy, Request("s3:GetObject", "arn:aws:s3:::other/key", ""))
        assert not allows(policy, Request("s3:ListBucket", "arn:aws:s3:::other", "bases/"))
    assert not allows("base-reader", Request("s3:ListBucket", "arn:aws:s3:::models", ""))
    assert not allows("base-reader", Request("s3:GetObject", "arn:aws:s3:::models/private/key", ""))


@pytest.mark.parametrize("file", sorted(POLICIES.glob("*.json")), ids=lambda file: file.stem)
def test_a_policy_has_the_shape_that_s3_takes(file: Path) -> None:
    policy = json.loads(file.read_text())
    assert policy.keys() == {"Version", "Statement"} and policy["Version"] == "2012-10-17"
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(sids)) == len(sids) and all(sid.isalnum() for sid in sids)
    for statement in policy["Statement"]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert all(resource.startswith("arn:aws:s3:::") for resource in statement["Resource"])
        on_buckets = {"/" not in resource for resource in statement["Resource"]}
        assert on_buckets == {set(statement["Action"]) == {"s3:ListBucket"}}, (
            "listing is of buckets, else objects"
        )
