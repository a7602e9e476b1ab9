"""The S3 policies in k8s/policies, and what they decide."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from tests.support.paths import PROJECT

POLICIES = PROJECT / "k8s" / "policies"
NAMES = sorted(file.stem for file in POLICIES.glob("*.json"))


class Request(NamedTuple):
    """What a policy decides about: an action on a bucket or an object, and the prefix of a listing."""

    action: str
    resource: str
    prefix: str


def statements(policy: str) -> list[dict[str, Any]]:
    """What the policy of this name states."""
    return json.loads((POLICIES / f"{policy}.json").read_text())["Statement"]


def allows(policy: str, request: Request) -> bool:
    """Whether a policy, all by itself, lets the request pass."""
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
    """Every action that a policy grants on anything."""
    return {action for statement in statements(policy) for action in statement["Action"]}
