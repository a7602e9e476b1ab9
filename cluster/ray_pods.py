"""The specification of a Ray cluster on Kubernetes: head, workers, and what their pods may do (see `cluster.manifests`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

NAMESPACE = "prompt-corrector"
ENDPOINT = "endpoint"
KEYS = "/etc/corrector/keys.json"
"""The endpoint's API keys, from the Secret `endpoint-keys`."""
GPU_BASE = "stabilityai/stable-diffusion-3.5-medium"
OBJECT_STORE_GIB = 2
GPU_MEMORY_MIB = 22_000
"""Device memory that a GPU has at least, in MiB: cards of 24 GB and more. In the 85 % of it that the planner uses, Stable
Diffusion 3.5 medium trains at 1024 x 1024 pixels without recomputed blocks."""
GPU_WORKER_GIB = 24
"""Memory of a GPU worker: 14.6 GiB for the base while it is loaded (text encoders 10.4, transformer 4.2), 2 for the object
store, and the rest for Ray and the processes of a lane and of scoring, which were not measured on a GPU."""
CONTROLLER_GIB = 0.6
"""Memory that a lane takes on the head: Ray Train's controller (0.4) and its cleaner (0.2)."""
HEAD_GIB = 3
"""Memory of a head without lanes: Ray's servers and a job's driver."""
GRACE_SECONDS = 100
SPOT_SECONDS = 900
"""After which the autoscaler gives up a worker that is not there yet, and for ten minutes prefers another group. It includes
the start of a node and the pull of the image; Ray's default is an hour."""
_DRAIN_SECONDS = 60
"""For which a pod that has to leave takes no new work before it is stopped. A spot instance of AWS has two minutes."""


@dataclass(frozen=True)
class WorkerGroup:
    """A worker group; `spot` None: any node."""

    name: str
    cpus: int
    memory_gib: int
    cache_gib: int
    gpu: bool = False
    spot: bool | None = None
    priority: int = 0


@dataclass(frozen=True)
class Variant:
    """An overlay.

    Attributes:
        base: The base model of endpoint and jobs.
        groups: The worker groups. Those with GPUs begin with no worker and grow by what jobs and replicas ask for.
        most: Workers of a group at most.
    """

    name: str
    base: str
    groups: tuple[WorkerGroup, ...]
    most: int


_GPU = WorkerGroup("gpu", cpus=6, memory_gib=GPU_WORKER_GIB, cache_gib=60, gpu=True)
VARIANTS = (
    Variant("laptop", "embedded", (WorkerGroup("cpu", cpus=2, memory_gib=5, cache_gib=4),), most=1),
    Variant("gpu", GPU_BASE, (_GPU,), most=8),
    Variant(
        "gpu-spot",
        GPU_BASE,
        (
            WorkerGroup("gpu-spot", 6, GPU_WORKER_GIB, 60, gpu=True, spot=True, priority=10),
            WorkerGroup("gpu-on-demand", 6, GPU_WORKER_GIB, 60, gpu=True, spot=False),
        ),
        most=8,
    ),
)

UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
NODE_ENVIRONMENT = [
    {"configMapRef": {"name": "node-environment"}},
    {"configMapRef": {"name": "settings"}},
    {"secretRef": {"name": "s3", "optional": True}},
]
_ENOUGH = {"operator": "Gt", "values": [str(GPU_MEMORY_MIB)]}
_LARGE_ON_GKE = [
    "nvidia-l4",
    "nvidia-tesla-a100",
    "nvidia-a100-80gb",
    "nvidia-h100-80gb",
    "nvidia-h200-141gb",
]
_NODES: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"key": "karpenter.k8s.aws/instance-gpu-memory", **_ENOUGH}, "karpenter.sh/capacity-type", "spot"),
    ({"key": "nvidia.com/gpu.memory", **_ENOUGH}, "eks.amazonaws.com/capacityType", "SPOT"),
    (
        {"key": "cloud.google.com/gke-accelerator", "operator": "In", "values": _LARGE_ON_GKE},
        "cloud.google.com/gke-spot",
        "true",
    ),
)
"""Of Karpenter on AWS, of NVIDIA's GPU feature discovery anywhere with EKS' node groups, and of GKE: what a node with enough
device memory is labelled with, and the label of a spot node."""


def cluster_spec(variant: Variant, name: str, priority: str, *, most: int | None = None) -> dict[str, Any]:
    """The specification of a Ray cluster; `name` labels its pods."""
    serves = name == ENDPOINT
    most = most or variant.most
    head_gib = HEAD_GIB + round(CONTROLLER_GIB * variant.most)
    ports = {"gcs-server": 6379, "dashboard": 8265, "metrics": 8080} | ({"serve": 8000} if serves else {})
    head = _container("ray-head", "cpu", ports, cpus=1, memory_gib=head_gib, serves=serves)
    groups = [_worker_group(group, name, priority, most) for group in variant.groups]
    return {
        "rayVersion": version("ray"),
        "enableInTreeAutoscaling": True,
        "authOptions": {"mode": "token", "secretName": "ray-token"},
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 300,
            "securityContext": UNPRIVILEGED,
            "resources": resources({"cpu": "500m", "memory": "1Gi"}),
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an empty volume
            "env": [
                {"name": "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S", "value": str(SPOT_SECONDS)}
            ],
        },
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "object-store-memory": str(OBJECT_STORE_GIB * 2**30)},
            "template": _pod(
                name, head, priority=priority, account="ray-head", cache_gib=10, token=True, serves=serves
            ),
        },
        "workerGroupSpecs": groups,
    }


def _worker_group(group: WorkerGroup, name: str, priority: str, most: int) -> dict[str, Any]:
    serves = name == ENDPOINT
    ports = {"metrics": 8080} | ({"serve": 8000} if serves else {})
    kind = "gpu" if group.gpu else "cpu"
    container = _container(
        "ray-worker", kind, ports, cpus=group.cpus, memory_gib=group.memory_gib, gpu=group.gpu, serves=serves
    )
    if serves:
        # The proxy answers where a replica is, so the Service leaves out workers that have none.
        container["readinessProbe"] = _probe("/-/healthz", "serve", failures=1)
    template = _pod(
        name, container, priority=priority, account="ray", cache_gib=group.cache_gib, serves=serves
    )
    if group.gpu:
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        if group.spot:
            tolerations.append(
                {"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"}
            )
        template["spec"] |= {"tolerations": tolerations, "affinity": {"nodeAffinity": _nodes(group)}}
    return {
        "groupName": group.name,
        "replicas": 0 if group.gpu else 1,
        "minReplicas": 0 if group.gpu else 1,
        "maxReplicas": most,
        **({"priority": group.priority} if group.priority else {}),
        "rayStartParams": {"object-store-memory": str(OBJECT_STORE_GIB * 2**30)},
        "template": template,
    }


def _nodes(group: WorkerGroup) -> dict[str, Any]:
    """Nodes with enough device memory, on spot instances or not."""
    terms: list[list[dict[str, Any]]] = [[memory] for memory, _, _ in _NODES]
    if group.spot is not None:
        spot = [{"key": key, "operator": "In", "values": [value]} for _, key, value in _NODES]
        never = [{**each, "operator": "NotIn"} for each in spot]
        terms = [
            [*term, each] if group.spot else [*term, *never] for term, each in zip(terms, spot, strict=True)
        ]
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": term} for term in terms]
        }
    }


def _container(
    name: str,
    image: str,
    ports: Mapping[str, int],
    *,
    cpus: int,
    memory_gib: int,
    gpu: bool = False,
    serves: bool = False,
) -> dict[str, Any]:
    drain = (
        "ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'the pod has to leave' "
        f'--address "$RAY_ADDRESS" --deadline-remaining-seconds {_DRAIN_SECONDS}; sleep {_DRAIN_SECONDS}'
    )
    mounts = {"tmp": "/tmp", "home": "/home/ray", "cache": "/cache"}  # noqa: S108 - an empty volume
    return {
        "name": name,
        "image": f"prompt-corrector-{image}",
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "envFrom": NODE_ENVIRONMENT,
        "env": [
            secret_variable("CORRECTOR_DATABASE", "database", "corrector-url"),
            secret_variable("HF_TOKEN", "huggingface", "token", optional=True),
        ],
        "resources": resources(
            {"cpu": str(cpus), "memory": f"{memory_gib}Gi"} | ({"nvidia.com/gpu": "1"} if gpu else {})
        ),
        "livenessProbe": _probe("/api/healthz", 52365, failures=12),
        "readinessProbe": _probe("/api/healthz", 52365, failures=3),
        **(
            {}
            if name == "ray-head"
            else {"lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", drain]}}}}
        ),
        "securityContext": UNPRIVILEGED,
        "volumeMounts": [
            *({"name": volume, "mountPath": path} for volume, path in mounts.items()),
            *([{"name": "keys", "mountPath": str(Path(KEYS).parent), "readOnly": True}] if serves else []),
        ],
    }


def _pod(
    name: str,
    container: dict[str, Any],
    *,
    priority: str,
    account: str,
    cache_gib: int,
    token: bool = False,
    serves: bool = False,
) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": volume, "emptyDir": {"sizeLimit": f"{size}Gi"}}
        for volume, size in (("tmp", 20), ("home", 2), ("cache", cache_gib))
    ]
    if serves:
        volumes.append({"name": "keys", "secret": {"secretName": "endpoint-keys"}})
    return {
        "metadata": {"labels": pod_labels("ray-node", name)},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": token,
            "priorityClassName": f"{NAMESPACE}-{priority}",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": user(),
            "containers": [container],
            "volumes": volumes,
        },
    }


def pod_labels(component: str, instance: str) -> dict[str, str]:
    """Labels by which policies and monitors find a pod; KubeRay keeps them."""
    return {
        "app.kubernetes.io/part-of": NAMESPACE,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/instance": instance,
    }


def user() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _probe(path: str, port: int | str, *, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": 20,
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def resources(amounts: Mapping[str, str]) -> dict[str, Any]:
    """Requests equal to limits, but for CPUs, which are not limited: Ray counts them itself."""
    return {
        "requests": dict(amounts),
        "limits": {name: amount for name, amount in amounts.items() if name != "cpu"},
    }


def secret_variable(variable: str, secret: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference = {"name": secret, "key": key} | ({"optional": True} if optional else {})
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
