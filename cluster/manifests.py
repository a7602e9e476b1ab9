"""Manifests of the Ray clusters on Kubernetes: `python -m cluster.manifests` writes them below k8s/.

What they share is written once: the environment of every node in `cluster/node.env`, the endpoint's application in
`serving/config.yaml`, the version in `pyproject.toml`, alerts and dashboard in `cluster/monitoring`, the pods in
`cluster/ray_pods.py`. A RayCluster for `ray job submit`, a RayService for the endpoint, and a RayJob for a batch or a search
differ in little else than their names. Each variant has an overlay: `laptop` (CPUs, the embedded base), `gpu`, and `gpu-spot`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

from cluster.ray_pods import (
    ENDPOINT,
    KEYS,
    NAMESPACE,
    NODE_ENVIRONMENT,
    UNPRIVILEGED,
    VARIANTS,
    Variant,
    cluster_spec,
    pod_labels,
    resources,
    secret_variable,
    user,
)
from cluster.state_folder import PROJECT

CLUSTER = "corrector"
JOB_GPUS = 2
"""GPUs that a RayJob asks for."""
K8S = PROJECT / "k8s"
MONITORING = PROJECT / "cluster" / "monitoring"
_MADE = "# Made by `python -m cluster.manifests`; do not edit.\n"
_DAY = 24 * 3600


def main() -> None:
    """Write every file."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def files() -> dict[Path, str]:
    """The generated files: path and content."""
    made: dict[str, list[dict[str, Any]]] = {
        "components/images/kustomization.yaml": [_images()],
        "components/monitoring/generated.yaml": _monitoring(),
    }
    for variant in VARIANTS:
        made[f"overlays/{variant.name}/generated.yaml"] = [
            ray_cluster(variant),
            ray_service(variant),
            nightly(variant),
        ]
        for program in ("correct", "search"):
            made[f"jobs/{variant.name}/{program}/generated.yaml"] = [ray_job(variant, program)]
    texts = {K8S / name: _text(objects) for name, objects in made.items()}
    node = (PROJECT / "cluster" / "node.env").read_text(encoding="utf-8")
    return texts | {K8S / "base" / "node.env": _MADE + node}


def ray_cluster(variant: Variant) -> dict[str, Any]:
    """A cluster that stays, for `ray job submit` and the nightly batch."""
    return _object("RayCluster", CLUSTER, cluster_spec(variant, CLUSTER, "batch"))


def ray_service(variant: Variant) -> dict[str, Any]:
    """The endpoint."""
    application = application_config(variant)
    engines = application["applications"][0]["args"]["engines"]
    spec = cluster_spec(variant, ENDPOINT, "endpoint", most=engines["most"])
    return _object(
        "RayService",
        ENDPOINT,
        {
            "rayClusterDeletionDelaySeconds": 120,
            "serveConfigV2": yaml.safe_dump(application, sort_keys=False),
            "rayClusterConfig": spec,
        },
    )


def ray_job(variant: Variant, program: str) -> dict[str, Any]:
    """A batch (`correct`) or a search on a cluster of its own.

    The run's name is the batch's. KubeRay asks Ray for the submission's status before it submits again, and a retry on a new
    cluster meets the run's lock and what the first one has finished.
    """
    run, options = ("people", "") if program == "correct" else ("people-search", " --resume")
    command = f"python -m jobs.{program} people.yaml --base {variant.base} --run-id {run}{options}"
    if variant.groups[0].gpu:
        command += f" --gpus {JOB_GPUS}"
    return _object(
        "RayJob",
        f"{program}-people",
        {
            "entrypoint": command,
            "runtimeEnvYAML": "working_dir: s3://runs/batches/people.zip\n",
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": 3},
            "submitterPodTemplate": _submitter("submitter", memory="1Gi"),
            "backoffLimit": 2,
            "preRunningDeadlineSeconds": 3600,
            "deletionStrategy": {
                "deletionRules": [
                    {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 60}},
                    {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 1800}},
                    {"policy": "DeleteSelf", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 7 * _DAY}},
                    {"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 30 * _DAY}},
                ]
            },
            "rayClusterSpec": cluster_spec(variant, f"{program}-people", "batch"),
        },
    )


def application_config(variant: Variant) -> dict[str, Any]:
    """What `serving/config.yaml` says, for this variant."""
    config: dict[str, Any] = yaml.safe_load((PROJECT / "serving" / "config.yaml").read_text(encoding="utf-8"))
    config["http_options"]["host"] = "0.0.0.0"  # noqa: S104 - in a pod that network policies close
    arguments = config["applications"][0]["args"]
    arguments |= {"base": variant.base, "engine_gpus": int(variant.groups[0].gpu)}
    arguments["ingress"] = arguments.get("ingress", {}) | {"keys": KEYS}
    arguments["engines"] = arguments["engines"] | {"most": min(arguments["engines"]["most"], variant.most)}
    return config


def nightly(variant: Variant) -> dict[str, Any]:
    """The CronJob that submits what users flagged and people completed to the cluster of `ray_cluster`."""
    command = ["python", "-m", "jobs.nightly", "--exemplars", "s3://models/exemplars", "--days", "14"]
    command += ["--base", variant.base, "--out", "/tmp/nightly", "--submit"]  # noqa: S108 - an empty volume
    if variant.groups[0].gpu:
        command += ["--gpus", str(JOB_GPUS)]
    pod = _submitter("nightly", memory="2Gi")
    pod["spec"]["serviceAccountName"] = "nightly"
    pod["spec"]["containers"][0] |= {
        "command": command,
        "envFrom": NODE_ENVIRONMENT,
        "env": [
            {"name": "RAY_API_SERVER_ADDRESS", "value": f"http://{CLUSTER}-head-svc:8265"},
            secret_variable("RAY_AUTH_TOKEN", "ray-token", "auth_token"),
            secret_variable("CORRECTOR_DATABASE", "database", "corrector-url"),
        ],
    }
    job = {
        "backoffLimit": 3,
        "activeDeadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 7 * _DAY,
        "template": pod,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata("nightly"),
        "spec": {
            "schedule": "0 2 * * *",
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": job},
        },
    }


def _submitter(name: str, *, memory: str) -> dict[str, Any]:
    """The pod of a program that submits to a cluster's head."""
    container = {
        "name": name,
        "image": "prompt-corrector-cpu",
        "resources": resources({"cpu": "500m", "memory": memory}),
        "securityContext": UNPRIVILEGED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/home/ray"}],  # noqa: S108
    }
    return {
        "metadata": {"labels": pod_labels("submitter", name)},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": user(),
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        },
    }


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": _metadata(name), "spec": spec}


def _images() -> dict[str, Any]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tags = {"gpu": project["version"], "cpu": f"{project['version']}-cpu"}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [
            {"name": f"{project['name']}-{kind}", "newName": project["name"], "newTag": tag}
            for kind, tag in tags.items()
        ],
    }


def _monitoring() -> list[dict[str, Any]]:
    """How Prometheus finds Ray's metrics, and the project's alerts and dashboard."""
    made = [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": _metadata("ray-nodes"),
            "spec": {
                "selector": {"matchLabels": {"app.kubernetes.io/component": "ray-node"}},
                "podTargetLabels": ["app.kubernetes.io/instance", "ray.io/node-type"],
                "podMetricsEndpoints": [{"port": "metrics", "interval": "15s"}],
            },
        }
    ]
    if (alerts := MONITORING / "alerts.yaml").is_file():
        groups = yaml.safe_load(alerts.read_text(encoding="utf-8"))["groups"]
        made.append(
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PrometheusRule",
                "metadata": _metadata("prompt-corrector"),
                "spec": {"groups": groups},
            }
        )
    if (dashboard := MONITORING / "dashboard.json").is_file():
        # Grafana's sidecar loads ConfigMaps with this label.
        metadata = _metadata("grafana-dashboard") | {"labels": {"grafana_dashboard": "1"}}
        data = {"prompt-corrector.json": dashboard.read_text(encoding="utf-8")}
        made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return made


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _block)


def _text(objects: list[dict[str, Any]]) -> str:
    return _MADE + yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120, default_flow_style=None)


if __name__ == "__main__":
    main()
