"""Everything that can be wrong with Kubernetes manifests and shows without a cluster; each problem names object and field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import jsonschema
from referencing import Registry, Resource

from tests.support.crd_schemas import schemas
from tests.support.manifests import Manifests, Object, Pod, find, matches, name_of, walk

_SCHEMAS = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.37.0-local-strict"
_KINDS = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMap": "ConfigMap",
    "serviceAccountName": "ServiceAccount",
    "priorityClassName": "PriorityClass",
    "serviceName": "Service",
    "claimName": "PersistentVolumeClaim",
    "clusterQueue": "ClusterQueue",
    "flavors": "ResourceFlavor",
    "kueue.x-k8s.io/queue-name": "LocalQueue",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
    "secretName": "Secret",
    "certificateRefs": "Secret",
}
"""Fields that name an object of a kind; the object's name, or a mapping with it."""
_SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|API_KEY|ACCESS_KEY|DATABASE|STORE_URI")
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]+:[^/\s@$]+@")
_ADDRESS = re.compile(r"(?:^|https?://)([a-z][a-z0-9-]*):(\d+)")


def problems(given: Manifests) -> list[str]:
    """Everything that is wrong with the objects of `given`."""
    of_objects = (_schema, _references, _addresses, _plain_secrets, _selectors, _ports, _ray, _kueue)
    of_pods = (_volumes, _probes, _image, _privileges, _amounts)
    found = [problem for each in given.objects for check in of_objects for problem in check(given, each)]
    return found + [problem for pod in given.own_pods for check in of_pods for problem in check(given, pod)]


def _schema(given: Manifests, each: Object) -> Iterator[str]:
    yield from _schema_problems(json.dumps(each))


@cache
def _schema_problems(text: str) -> list[str]:
    each = json.loads(text)
    validator = _validator(each["apiVersion"], each["kind"])
    if validator is None:
        return [f"{name_of(each)}: apiVersion: no schema for {each['apiVersion']}"]
    return [
        f"{name_of(each)}: {_dotted(error.absolute_path)}: {error.message[:200]}"
        for error in validator.iter_errors(each)
    ]


@cache
def _validator(api: str, kind: str) -> Any:
    if f"{api}/{kind}" in (known := schemas())["$defs"]:
        return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{api.replace('/', '~1')}~1{kind}", **known})
    group, _, number = api.rpartition("/")
    file = _SCHEMAS / "-".join(filter(None, (kind.lower(), group.split(".")[0], f"{number}.json")))
    if not file.is_file():
        return None
    schema = json.loads(file.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema, registry=_definitions())


@cache
def _definitions() -> Registry[Any]:
    definitions = json.loads((_SCHEMAS / "_definitions.json").read_text(encoding="utf-8"))
    return Resource.from_contents(definitions) @ Registry()


def _references(given: Manifests, each: Object) -> Iterator[str]:
    """Names of objects that nothing makes; a Secret is made by the user."""
    for field, path, node in find(each, _KINDS):
        kind = _KINDS[field]
        for one in node if isinstance(node, list) else [node]:
            name, key = (one, None) if isinstance(one, str) else (one["name"], one.get("key"))
            where = f"{name_of(each)}: {_dotted(path)}"
            if kind == "Secret":
                if name not in given.secrets:
                    yield f"{where}: no Secret {name} in the table of k8s/README.md"
                elif key and key not in given.secrets[name]:
                    yield f"{where}: no key {key} of the Secret {name} in the table of k8s/README.md"
            elif name not in (made := given.named(kind)):
                yield f"{where}: no {kind} {name}"
            elif key and key not in made[name].get("data", {}):
                yield f"{where}: no key {key} in the {kind} {name}"


def _addresses(given: Manifests, each: Object) -> Iterator[str]:
    """Services and ports that nothing makes, in routes and in the texts of variables."""
    services = given.services
    named: list[tuple[Any, str, int]] = []
    for _, path, node in find(each, ("service", "backendRefs")):
        for one in node if isinstance(node, list) else [node]:
            port = one["port"]
            named.append((path, one["name"], port["number"] if isinstance(port, dict) else port))
    for path, node in walk(each):
        for key, value in node.items() if isinstance(node, dict) else ():
            found = _ADDRESS.findall(value) if isinstance(value, str) and key != "image" else ()
            named += [((*path, key), host, int(port)) for host, port in found if host != "localhost"]
    for path, host, number in named:
        if number not in services.get(host, ()):
            yield f"{name_of(each)}: {_dotted(path)}: no Service {host} with port {number}"


def _plain_secrets(given: Manifests, each: Object) -> Iterator[str]:
    if each["kind"] == "Secret":
        yield f"{name_of(each)}: data: the repository holds no Secrets"
    values = [("data", key, value) for key, value in each.get("data", {}).items()]
    for path, node in walk(each):
        if isinstance(node, dict) and {"name", "value"} <= node.keys():
            values.append((_dotted(path), node["name"], node["value"]))
    for field, name, value in values:
        if (_SECRET_NAME.search(name) and value) or _URL_WITH_PASSWORD.search(str(value)):
            yield f"{name_of(each)}: {field}.{name}: a secret in plain text"


def _selectors(given: Manifests, each: Object) -> Iterator[str]:
    """Selectors that match no pod."""
    pods = given.pods
    beside_namespace = {
        path for path, node in walk(each) if isinstance(node, dict) and "namespaceSelector" in node
    }
    for _, path, selector in find(each, ("podSelector", "selector")):
        wanted = {"matchLabels": selector} if each["kind"] == "Service" else selector
        if path[:-1] not in beside_namespace and not any(matches(wanted, pod.labels) for pod in pods):
            yield f"{name_of(each)}: {_dotted(path)}: matches no pod: {wanted}"
    if each["kind"] in ("Deployment", "StatefulSet"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        if not matches(each["spec"]["selector"], labels):
            yield f"{name_of(each)}: spec.selector: does not match the object's own template"


def _ports(given: Manifests, each: Object) -> Iterator[str]:
    """Ports of Services, policies and monitors that no selected container serves."""
    spec = each.get("spec", {})
    if each["kind"] == "Service":
        selector, ports = {"matchLabels": spec["selector"]}, spec["ports"]
    elif each["kind"] == "NetworkPolicy":
        selector = spec["podSelector"]
        ports = [port for rule in spec.get("ingress", ()) for port in rule.get("ports", ())]
    elif each["kind"] == "PodMonitor":
        selector, ports = spec["selector"], spec["podMetricsEndpoints"]
    else:
        return
    chosen = [pod for pod in given.pods if matches(selector, pod.labels)]
    for port in ports:
        number = str(port.get("targetPort", port["port"]))
        if not any(number in pod.ports or not pod.containers for pod in chosen):
            yield f"{name_of(each)}: spec: no container serves the port {number}"


def _volumes(given: Manifests, pod: Pod) -> Iterator[str]:
    claims = {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", ())}
    volumes = {volume["name"] for volume in pod.spec.get("volumes", ())} | claims
    for where, container in pod.named_containers:
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                yield f"{where}.volumeMounts: no volume {mount['name']}"


def _probes(given: Manifests, pod: Pod) -> Iterator[str]:
    for where, container in pod.named_containers:
        probes = {key: value for key, value in container.items() if key.endswith("Probe")}
        for name, probe in probes.items():
            port = str((probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port", ""))
            if port and port not in pod.ports:
                yield f"{where}.{name}: no container serves the port {port}"
        if container.get("ports") and not {"livenessProbe", "readinessProbe"} <= probes.keys():
            yield f"{where}: no liveness or no readiness probe"


def _image(given: Manifests, pod: Pod) -> Iterator[str]:
    for where, container in pod.named_containers:
        image, _, tag = container["image"].rpartition(":")
        if not image or tag == "latest":
            yield f"{where}.image: {container['image']} names no version"
        elif image.startswith("prompt-corrector") and tag not in (given.version, f"{given.version}-cpu"):
            yield f"{where}.image: {tag} is not the version, {given.version}"


def _privileges(given: Manifests, pod: Pod) -> Iterator[str]:
    """What the restricted Pod Security Standard refuses, and a root file system that can be written."""
    where = f"{name_of(pod.owner)}: {pod.field}"
    yield from (
        f"{where}.{key}: not allowed" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key)
    )
    for volume in pod.spec.get("volumes", ()):
        if "hostPath" in volume:
            yield f"{where}.volumes.{volume['name']}: hostPath is not allowed"
    whole = pod.spec.get("securityContext", {})
    for where, container in pod.named_containers:
        context = whole | container.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{where}.securityContext: may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{where}.securityContext.seccompProfile: expected RuntimeDefault"
        yield from _unprivileged(where, context)


def _unprivileged(where: str, context: Mapping[str, Any]) -> Iterator[str]:
    if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
        yield f"{where}.securityContext.allowPrivilegeEscalation: expected false"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{where}.securityContext.capabilities: expected all dropped"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{where}.securityContext.readOnlyRootFilesystem: expected true"


def _amounts(given: Manifests, pod: Pod) -> Iterator[str]:
    for where, container in pod.named_containers:
        amounts = container.get("resources", {})
        if "memory" not in amounts.get("limits", {}):
            yield f"{where}.resources.limits: no memory"
        missing = {"cpu", "memory"} - amounts.get("requests", {}).keys()
        yield from (f"{where}.resources.requests: no {name}" for name in sorted(missing))


def _ray(given: Manifests, each: Object) -> Iterator[str]:
    """What KubeRay 1.7 refuses when it reconciles an object, and what this project asks of a cluster."""
    name, spec = name_of(each), each.get("spec", {})
    clusters = [spec] if each["kind"] == "RayCluster" else []
    clusters += [spec[key] for key in ("rayClusterSpec", "rayClusterConfig") if key in spec]
    for cluster in clusters:
        scaled = cluster.get("enableInTreeAutoscaling")
        if cluster.get("rayVersion") != version("ray"):
            yield f"{name}: rayVersion: expected {version('ray')}, which the image has"
        if cluster.get("authOptions", {}).get("mode") != "token":
            yield f"{name}: authOptions.mode: expected token"
        for group in cluster["workerGroupSpecs"]:
            if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
                yield f"{name}: workerGroupSpecs.{group['groupName']}.replicas: not between minReplicas and maxReplicas"
        if "autoscalerOptions" in cluster:
            yield from _unprivileged(
                f"{name}: autoscalerOptions", cluster["autoscalerOptions"].get("securityContext", {})
            )
        if "upgradeStrategy" in spec and not scaled:
            yield f"{name}: spec.upgradeStrategy: needs the autoscaler"
        rules = spec.get("deletionStrategy", {}).get("deletionRules", ())
        if rules and (
            spec.get("shutdownAfterJobFinishes") or any("Workers" in rule["policy"] for rule in rules)
        ):
            yield f"{name}: spec.deletionStrategy: excludes shutdownAfterJobFinishes, and DeleteWorkers the autoscaler"


def _kueue(given: Manifests, each: Object) -> Iterator[str]:
    """Jobs that Kueue 0.19 refuses."""
    spec = each.get("spec", {})
    if "kueue.x-k8s.io/queue-name" in each["metadata"].get("labels", {}):
        scaled = spec["rayClusterSpec"].get("enableInTreeAutoscaling")
        if scaled or not spec.get("shutdownAfterJobFinishes"):
            yield f"{name_of(each)}: spec: Kueue takes clusters of a fixed size, with shutdownAfterJobFinishes"


def _dotted(path: Any) -> str:
    return ".".join(map(str, path))
