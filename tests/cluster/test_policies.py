"""The S3 policies grant what is called, and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from mlflow.tracking import MlflowClient

from cluster.buckets import require_bucket
from cluster.object_store import ObjectStore
from cluster.state import PROJECT
from corrector import objects
from corrector.registry import Reference, local_uri, register
from corrector.registry.collect import collect
from corrector.registry.sharing import share
from tests.registry.conftest import PERSON
from tests.registry.records import small_adapter, write_record

POLICIES = PROJECT / "k8s" / "policies"
NAMES = sorted(file.stem for file in POLICIES.glob("*.json"))

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
    requests: set[Request], tmp_path: Path
) -> None:
    """Artifacts go to S3 from the clients themselves: in one part and in parts, an upload that is given up included."""
    uri = local_uri(tmp_path)
    place: dict[str, Any] = {"tracking_uri": uri, "root": tmp_path}
    client = MlflowClient(uri, uri)
    client.create_experiment("corrections", artifact_location="s3://mlflow/direct")
    records = [tmp_path / str(rank) for rank in (8, 200)]
    for record, rank in zip(records, (8, 200), strict=True):
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
    share(Reference("of-200", "1"), **place)
    requires("artifact-reader")
    for name in ("of-8", "of-200"):
        client.delete_model_version(name, "1")
    assert len(collect(**place, older_than=timedelta(0), delete=True)) == 2
    requires("artifact-collector")


@pytest.mark.parametrize("policy", ["artifact-reader", "base-reader", "artifact-collector"])
def test_who_only_reads_or_deletes_cannot_write(policy: str, requests: set[Request], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    objects.upload(tmp_path / "a", "s3://mlflow/1/a")
    objects.upload(tmp_path / "a", "s3://models/bases/a")
    assert not any(allows(policy, request) for request in requests)


def test_only_the_server_and_the_collector_delete() -> None:
    assert [policy for policy in NAMES if "s3:DeleteObject" in granted(policy)] == [
        "artifact-collector",
        "registry-writer",
    ]


def test_no_policy_reaches_beyond_its_bucket_and_folders() -> None:
    for policy in NAMES:
        assert not allows(policy, Request("s3:GetObject", "arn:aws:s3:::other/key", ""))
        assert not allows(policy, Request("s3:ListBucket", "arn:aws:s3:::other", "bases/"))
    assert not allows("base-reader", Request("s3:ListBucket", "arn:aws:s3:::models", ""))
    assert not allows("base-reader", Request("s3:GetObject", "arn:aws:s3:::models/private/key", ""))


def test_one_set_of_policies_serves_the_machine_and_kubernetes() -> None:
    link = PROJECT / "cluster" / "policies"
    assert link.resolve() == POLICIES
    (generated,) = yaml.safe_load((POLICIES / "kustomization.yaml").read_text())["configMapGenerator"]
    assert generated["files"] == [f"{name}.json" for name in NAMES]
    described = re.findall(r"^\| `([\w-]+)\.json` \|", (POLICIES / "README.md").read_text(), re.MULTILINE)
    assert sorted(described) == NAMES


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
