"""Each of these mistakes in a manifest is found, by the object's and the field's name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.manifest_checks import problems
from tests.support.manifests import Manifests, Object, name_of

pytestmark = pytest.mark.xdist_group("k8s")

COMPONENTS = ("kueue", "monitoring", "redis", "postgres", "object-store", "gateway", "incremental-upgrade")
REMOVED = object()
HEAD = "spec.headGroupSpec.template.spec"
WORKER = "spec.workerGroupSpecs.0.template.spec"
MLFLOW = "spec.template.spec.containers.0"


class Mistake(NamedTuple):
    """What to write at which field of which object, and what is said of it."""

    object: str
    at: str
    value: Any
    said: str


MISTAKES = {
    "misspelt key": Mistake(
        "Deployment mlflow",
        f"{MLFLOW}.readinesProbe",
        {},
        f"Deployment mlflow: {MLFLOW}: Additional properties",
    ),
    "misspelt key of a custom resource": Mistake(
        "RayCluster corrector",
        f"{WORKER}.containers.0.imagePulPolicy",
        "Always",
        f"RayCluster corrector: {WORKER}.containers.0: Additional properties are not allowed ('imagePulPolicy'",
    ),
    "value of another type": Mistake(
        "Gateway endpoint-tls",
        "spec.listeners.0.port",
        "https",
        "Gateway endpoint-tls: spec.listeners.0.port: 'https' is",
    ),
    "old version of an API": Mistake(
        "LocalQueue batches",
        "apiVersion",
        "kueue.x-k8s.io/v1alpha1",
        "LocalQueue batches: apiVersion: no schema",
    ),
    "Service that selects nothing": Mistake(
        "Service mlflow", "spec.selector", {"app": "mlflow"}, "Service mlflow: spec.selector: matches no pod"
    ),
    "policy that selects nothing": Mistake(
        "NetworkPolicy redis",
        "spec.ingress.0.from.0.podSelector.matchLabels",
        {"app.kubernetes.io/component": "ray"},
        "NetworkPolicy redis: spec.ingress.0.from.0.podSelector: matches no pod",
    ),
    "budget that selects nothing": Mistake(
        "PodDisruptionBudget endpoint-head",
        "spec.selector.matchLabels",
        {"app.kubernetes.io/instance": "images"},
        "PodDisruptionBudget endpoint-head: spec.selector: matches no pod",
    ),
    "Deployment that does not select its own pods": Mistake(
        "Deployment mlflow",
        "spec.selector.matchLabels",
        {"app.kubernetes.io/component": "redis"},
        "Deployment mlflow: spec.selector: does not match",
    ),
    "ConfigMap that nothing makes": Mistake(
        "ConfigMap settings", "metadata.name", "setting", "RayCluster corrector: spec.headGroupSpec"
    ),
    "Secret that nobody is told of": Mistake(
        "RayService endpoint",
        "spec.rayClusterConfig.authOptions.secretName",
        "ray-tokens",
        "RayService endpoint: spec.rayClusterConfig.authOptions.secretName: no Secret ray-tokens",
    ),
    "key that a Secret lacks": Mistake(
        "Deployment mlflow",
        f"{MLFLOW}.env.0.valueFrom.secretKeyRef.key",
        "url",
        f"Deployment mlflow: {MLFLOW}.env.0.valueFrom.secretKeyRef: no key url of the Secret database",
    ),
    "claim that nothing makes": Mistake(
        "RayCluster corrector",
        f"{HEAD}.volumes.0",
        {"name": "tmp", "persistentVolumeClaim": {"claimName": "runs"}},
        f"RayCluster corrector: {HEAD}.volumes.0.persistentVolumeClaim.claimName: no PersistentVolumeClaim runs",
    ),
    "volume that is not there": Mistake(
        "Deployment mlflow",
        "spec.template.spec.volumes",
        [],
        "Deployment mlflow: spec.template.spec.mlflow.volumeMounts: no",
    ),
    "service account that nothing makes": Mistake(
        "ServiceAccount ray",
        "metadata.name",
        "rays",
        f"RayCluster corrector: {WORKER}.serviceAccountName: no ServiceAccount",
    ),
    "priority class that nothing makes": Mistake(
        "RayCluster corrector",
        f"{HEAD}.priorityClassName",
        "high",
        f"RayCluster corrector: {HEAD}.priorityClassName: no PriorityClass high",
    ),
    "queue that nothing makes": Mistake(
        "LocalQueue batches",
        "spec.clusterQueue",
        "gpus",
        "LocalQueue batches: spec.clusterQueue: no ClusterQueue gpus",
    ),
    "Service port that no container serves": Mistake(
        "Service mlflow",
        "spec.ports.0.targetPort",
        8080,
        "Service mlflow: spec: no container serves the port 8080",
    ),
    "policy port that no container serves": Mistake(
        "NetworkPolicy mlflow",
        "spec.ingress.0.ports.0.port",
        80,
        "NetworkPolicy mlflow: spec: no container serves the port 80",
    ),
    "probe at a port that nothing serves": Mistake(
        "RayCluster corrector",
        f"{WORKER}.containers.0.readinessProbe.httpGet.port",
        5236,
        f"RayCluster corrector: {WORKER}.ray-worker.readinessProbe: no container serves the port 5236",
    ),
    "monitored port that nothing serves": Mistake(
        "PodMonitor ray-nodes",
        "spec.podMetricsEndpoints.0.port",
        "metric",
        "PodMonitor ray-nodes: spec: no container",
    ),
    "route to a Service that nothing makes": Mistake(
        "HTTPRoute endpoint-tls",
        "spec.rules.0.backendRefs.0.name",
        "endpoint-svc",
        "HTTPRoute endpoint-tls: spec.rules.0.backendRefs: no Service endpoint-svc with port 80",
    ),
    "address of a Service that nothing makes": Mistake(
        "ConfigMap settings",
        "data.MLFLOW_TRACKING_URI",
        "http://mlflow:80",
        "ConfigMap settings: data.MLFLOW_TRACKING_URI: no Service mlflow with port 80",
    ),
    "address of a cluster that has another name": Mistake(
        "RayCluster corrector", "metadata.name", "main", "no Service corrector-head-svc with port 8265"
    ),
    "image of another version": Mistake(
        "Deployment mlflow",
        f"{MLFLOW}.image",
        "prompt-corrector:0.0.9-cpu",
        "Deployment mlflow: spec.template.spec.mlflow.image: 0.0.9-cpu is not the version",
    ),
    "latest image": Mistake(
        "StatefulSet redis", f"{MLFLOW}.image", "redis:latest", "redis.image: redis:latest names no"
    ),
    "image without a tag": Mistake(
        "StatefulSet redis", f"{MLFLOW}.image", "redis", "redis.image: redis names no version"
    ),
    "container that may run as root": Mistake(
        "RayService endpoint",
        "spec.rayClusterConfig.headGroupSpec.template.spec.securityContext.runAsNonRoot",
        REMOVED,
        "RayService endpoint: spec.rayClusterConfig.headGroupSpec.template.spec.ray-head.securityContext: may run as root",
    ),
    "user 0": Mistake(
        "StatefulSet postgres",
        "spec.template.spec.securityContext.runAsUser",
        0,
        "StatefulSet postgres: spec.template.spec.postgres.securityContext: may run as root",
    ),
    "privilege escalation": Mistake(
        "CronJob nightly",
        "spec.jobTemplate.spec.template.spec.containers.0.securityContext.allowPrivilegeEscalation",
        True,
        "nightly.securityContext.allowPrivilegeEscalation: expected false",
    ),
    "autoscaler with a root file system that can be written": Mistake(
        "RayCluster corrector",
        "spec.autoscalerOptions.securityContext",
        REMOVED,
        "RayCluster corrector: autoscalerOptions.securityContext.readOnlyRootFilesystem",
    ),
    "folder of the host": Mistake(
        "RayCluster corrector",
        f"{HEAD}.volumes.0",
        {"name": "tmp", "hostPath": {"path": "/tmp"}},
        f"RayCluster corrector: {HEAD}.volumes.tmp: hostPath is not allowed",
    ),
    "no memory limit": Mistake(
        "RayCluster corrector",
        f"{WORKER}.containers.0.resources.limits.memory",
        REMOVED,
        f"RayCluster corrector: {WORKER}.ray-worker.resources.limits: no memory",
    ),
    "no probe": Mistake(
        "Deployment mlflow",
        f"{MLFLOW}.livenessProbe",
        REMOVED,
        "Deployment mlflow: spec.template.spec.mlflow: no liveness",
    ),
    "secret in plain text": Mistake(
        "StatefulSet postgres",
        f"{MLFLOW}.env.0",
        {"name": "POSTGRES_PASSWORD", "value": "postgres"},
        "POSTGRES_PASSWORD: a secret in plain text",
    ),
    "password in a ConfigMap": Mistake(
        "ConfigMap settings",
        "data.TRACKING",
        "postgresql://user:secret@db/mlflow",
        "ConfigMap settings: data.TRACKING: a secret in plain text",
    ),
    "cluster without a token": Mistake(
        "RayCluster corrector",
        "spec.authOptions.mode",
        "disabled",
        "RayCluster corrector: authOptions.mode: expected token",
    ),
    "another version of Ray": Mistake(
        "RayCluster corrector", "spec.rayVersion", "2.9.0", "RayCluster corrector: rayVersion: expected"
    ),
    "more workers than allowed": Mistake(
        "RayCluster corrector",
        "spec.workerGroupSpecs.0.replicas",
        9,
        "RayCluster corrector: workerGroupSpecs.gpu.replicas: not between",
    ),
    "upgrade that needs the autoscaler": Mistake(
        "RayService endpoint",
        "spec.rayClusterConfig.enableInTreeAutoscaling",
        False,
        "RayService endpoint: spec.upgradeStrategy: needs the autoscaler",
    ),
}
OF_JOBS = {
    "queue that the cluster does not have": Mistake(
        "RayJob correct-people",
        "metadata.labels",
        {"kueue.x-k8s.io/queue-name": "nights"},
        "RayJob correct-people: metadata.labels.kueue.x-k8s.io/queue-name: no LocalQueue nights",
    ),
    "job that Kueue refuses": Mistake(
        "RayJob correct-people",
        "spec.shutdownAfterJobFinishes",
        REMOVED,
        "RayJob correct-people: spec: Kueue takes",
    ),
    "rules that KubeRay refuses": Mistake(
        "RayJob correct-people",
        "spec.deletionStrategy",
        {"deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]},
        "RayJob correct-people: spec.deletionStrategy: excludes shutdownAfterJobFinishes",
    ),
}
Render = Callable[..., list[Object]]
Check = Callable[..., Manifests]


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_an_overlay_is_named(mistake: Mistake, rendered: Render, manifests: Check) -> None:
    given = rendered("overlays/gpu", COMPONENTS)
    assert any(mistake.said in problem for problem in problems(manifests(_with(mistake, given))))


@pytest.mark.parametrize("mistake", OF_JOBS.values(), ids=OF_JOBS)
def test_a_mistake_in_a_job_is_named(mistake: Mistake, rendered: Render, manifests: Check) -> None:
    given = _with(mistake, rendered("jobs/gpu/correct", ("kueue-jobs",)))
    others = rendered("overlays/gpu", COMPONENTS)
    assert any(mistake.said in problem for problem in problems(manifests(given, others)))


def _with(mistake: Mistake, objects: list[Object]) -> list[Object]:
    """A copy of `objects` with the mistake in it."""
    changed = copy.deepcopy(objects)
    node: Any = next(each for each in changed if name_of(each) == mistake.object)
    *path, last = (int(part) if part.isdigit() else part for part in mistake.at.split("."))
    for part in path:
        node = node[part]
    if mistake.value is REMOVED:
        del node[last]
    else:
        node[last] = mistake.value
    return changed
