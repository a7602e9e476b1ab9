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
from collections.abc import Callable
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
    """`made` below `$defs`, with every larger schema that occurs more than once kept once."""
    seen: Counter[str] = Counter()

    def count(schema: dict[str, Any]) -> dict[str, Any]:
        text = _text(schema)
        seen[text] += len(text) > 200
        return schema if seen[text] > 1 else _mapped(schema, count)

    definitions: dict[str, Any] = {}

    def replace(schema: dict[str, Any]) -> dict[str, Any]:
        text = _text(schema)
        if seen[text] < 2:
            return _mapped(schema, replace)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        if name not in definitions:
            definitions[name] = _mapped(schema, replace)
        return {"$ref": f"#/$defs/{name}"}

    for schema in made.values():
        count(schema)
    return {"$defs": {name: _mapped(schema, replace) for name, schema in made.items()} | definitions}


def _mapped(schema: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """`schema` with `change` applied to the schemas directly inside it."""
    changed = {key: change(schema[key]) for key in ("items", "additionalProperties") if schema.get(key)}
    if "properties" in schema:
        changed["properties"] = {name: change(each) for name, each in schema["properties"].items()}
    return schema | changed


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
