"""The S3 policies have the shape that S3 takes, and reach no further than they must."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.paths import PROJECT
from tests.support.policies import NAMES, POLICIES, Request, allows, granted


def test_only_the_server_the_collector_and_jobs_delete() -> None:
    assert [policy for policy in NAMES if "s3:DeleteObject" in granted(policy)] == [
        "artifact-collector",
        "registry-writer",
        "run-keeper",
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
