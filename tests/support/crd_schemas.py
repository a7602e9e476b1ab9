"""Strict JSON Schemas of custom resources, made from their CustomResourceDefinitions:

    python -m tests.support.crd_schemas FOLDER

FOLDER has the published YAML files, which `SOURCES` names; the result is `tests/unit/k8s/crds.json.xz`. A key that a CRD does
not have is refused. Left out are descriptions, rules in CEL (`x-kubernetes-validations`) and `status`; fields with a default
are not required. What occurs more than once, such as the pod template, is kept once below `$defs`.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import PROJECT

FILE = PROJECT / "tests" / "unit" / "k8s" / "crds.json.xz"
SOURCES = {
    # Releases from which the checked-in schemas were made; all are Apache-2.0.
    "KubeRay 1.7.0": ("ray.io_rayclusters", "ray.io_rayjobs", "ray.io_rayservices"),
    "Kueue 0.19.2": (
        "kueue.x-k8s.io_clusterqueues",
        "kueue.x-k8s.io_localqueues",
        "kueue.x-k8s.io_resourceflavors",
    ),
    "Gateway API 1.6.1": ("gateway.networking.k8s.io_gateways", "gateway.networking.k8s.io_httproutes"),
    "Prometheus Operator 0.93.0": (
        "monitoring.coreos.com_podmonitors",
        "monitoring.coreos.com_prometheusrules",
        "monitoring.coreos.com_servicemonitors",
    ),
}
_KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")


@cache
def schemas() -> dict[str, Any]:
    """The checked-in schemas: `APIVERSION/KIND` names one below `$defs`."""
    return json.loads(lzma.decompress(FILE.read_bytes()))


def strict(node: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema as JSON Schema in which unknown keys are refused."""
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]} | {key: node[key] for key in ("pattern",) if key in node}
    made = {key: node[key] for key in _KEPT if key in node}
    if node.get("nullable"):
        made["type"] = [node["type"], "null"]
    if "items" in node:
        made["items"] = strict(node["items"])
    if "properties" in node:
        fields = {name: strict(each) for name, each in node["properties"].items()}
        made["properties"] = fields
        if required := [
            name for name in node.get("required", ()) if "default" not in node["properties"][name]
        ]:
            made["required"] = required
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        made["additionalProperties"] = strict(more)
    elif "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


def of_definition(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas of a CRD's served versions."""
    spec = definition["spec"]
    made = {}
    for version in spec["versions"]:
        if version["served"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            fields = schema["properties"]
            fields.pop("status", None)
            fields["metadata"] = {"type": "object", "required": ["name"]}
            fields["apiVersion"] = {"const": f"{spec['group']}/{version['name']}"}
            fields["kind"] = {"const": spec["names"]["kind"]}
            made[f"{fields['apiVersion']['const']}/{fields['kind']['const']}"] = schema
    return made


def shared(made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`made` below `$defs`, with every larger part that occurs more than once kept once."""
    seen: Counter[str] = Counter()

    def count(node: Any) -> None:
        if isinstance(node, dict):
            text = _text(node)
            seen[text] += len(text) > 200
            if seen[text] > 1:
                return
        for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            count(each)

    definitions: dict[str, Any] = {}

    def replace(node: Any, *, top: bool = False) -> Any:
        if isinstance(node, list):
            return [replace(each) for each in node]
        if not isinstance(node, dict):
            return node
        if not top and seen[text := _text(node)] > 1:
            name = hashlib.sha256(text.encode()).hexdigest()[:12]
            if name not in definitions:
                definitions[name] = {key: replace(each) for key, each in node.items()}
            return {"$ref": f"#/$defs/{name}"}
        return {key: replace(each) for key, each in node.items()}

    count(made)
    named = {name: replace(schema, top=True) for name, schema in made.items()}
    return {"$defs": named | definitions}


def main(folder: Path) -> None:
    """Write FILE from the CRDs in `folder`."""
    made: dict[str, dict[str, Any]] = {}
    for names in SOURCES.values():
        for name in names:
            made |= of_definition(yaml.load((folder / f"{name}.yaml").read_text(), yaml.CSafeLoader))
    text = json.dumps(shared(made), sort_keys=True, separators=(",", ":"))
    FILE.write_bytes(lzma.compress(text.encode(), preset=9))


def _text(node: dict[str, Any]) -> str:
    return json.dumps(node, sort_keys=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
