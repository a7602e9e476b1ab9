"""Every overlay, component and job renders, validates, and refers to nothing that is not there."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from ray.serve.schema import ServeDeploySchema
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from cluster import manifests as writer
from cluster import ray_pods
from corrector.dreambooth.pack_plan import plan_packs
from corrector.dreambooth.transformer_cost import TransformerCost
from corrector.prompts import HyperParameters
from jobs.lanes.plan import _MEMORY_SHARE
from serving.settings import ServingSettings
from tests.support.guides import blocks, check_module
from tests.support.manifest_checks import problems
from tests.support.manifests import K8S, Manifests, Object, name_of, render
from tests.support.sd3_family import TOKENS, VAE_SCALE_FACTOR, configuration

pytestmark = pytest.mark.xdist_group("k8s")  # both files render the same overlays

Render = Callable[..., list[Object]]
Check = Callable[..., Manifests]

VARIANTS = [variant.name for variant in ray_pods.VARIANTS]
COMPONENTS = sorted(path.parent.name for path in (K8S / "components").glob("*/kustomization.yaml"))
OF_OVERLAYS = [name for name in COMPONENTS if name not in ("images", "kueue-jobs")]
APART = ("gateway", "ingress", "incremental-upgrade")
# All at once, with either way to the endpoint; `incremental-upgrade` comes behind it.
ALL = [
    (*(name for name in OF_OVERLAYS if name not in APART), entry, "incremental-upgrade")
    for entry in ("gateway", "ingress")
]
COMBINATIONS = [
    *((variant, components) for variant in VARIANTS for components in [(), *ALL]),
    *(("gpu", (name,)) for name in OF_OVERLAYS),
]
JOBS = [
    (f"{variant}/{program}", components)
    for variant in VARIANTS
    for program in ("correct", "search")
    for components in [(), ("kueue-jobs",)]
]


def _label(value: object) -> str:
    return "+".join(value) or "plain" if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(("variant", "components"), COMBINATIONS, ids=_label)
def test_an_overlay_has_no_problem(
    variant: str, components: tuple[str, ...], rendered: Render, manifests: Check
) -> None:
    assert problems(manifests(rendered(f"overlays/{variant}", components))) == []


@pytest.mark.parametrize(("job", "components"), JOBS, ids=_label)
def test_a_job_has_no_problem_in_its_overlay(
    job: str, components: tuple[str, ...], rendered: Render, manifests: Check
) -> None:
    overlay = rendered(f"overlays/{Path(job).parent}", ("kueue",) if components else ())
    assert problems(manifests(rendered(f"jobs/{job}", components), overlay)) == []


def test_the_kustomizations_of_the_guide_have_no_problem(
    manifests: Check, rendered: Render, tmp_path: Path
) -> None:
    (tmp_path / "prompt-corrector").symlink_to(K8S.parent)
    made = []
    for number, block in enumerate(
        block for block in blocks(K8S / "README.md") if "kind: Kustom" in block.text
    ):
        (own := tmp_path / str(number)).mkdir()
        (own / "kustomization.yaml").write_text(block.text)
        made.append(render(own, tmp_path))
    overlay, job = made
    assert problems(manifests(overlay)) == problems(manifests(job, rendered("overlays/gpu"))) == []
    images = {container["image"] for pod in manifests(overlay).own_pods for container in pod.containers}
    assert all(image.startswith("registry.example.com/prompt-corrector:") for image in images)
    (settings,) = [each["data"] for each in overlay if name_of(each) == "ConfigMap settings"]
    assert settings["CORRECTOR_RUNS"] == "s3://your-runs" and "MLFLOW_TRACKING_URI" in settings
    assert [name_of(each) for each in job] == ["RayJob correct-animals"]


def test_generated_files_are_current() -> None:
    stale = [path for path, text in writer.files().items() if not path.is_file() or path.read_text() != text]
    assert not stale, "run `python -m cluster.manifests`"
    assert set(K8S.rglob("generated.yaml")) <= set(writer.files())


def test_alerts_and_dashboard_reach_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifests: Check, rendered: Render
) -> None:
    rule = {"alert": "Stalled", "expr": "rate(ray_corrector_steps_total[5m]) == 0", "for": "10m"}
    groups = [{"name": "jobs", "rules": [rule]}]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))
    (tmp_path / "dashboard.json").write_text('{"title": "Jobs"}')
    monkeypatch.setattr(writer, "MONITORING", tmp_path)
    text = writer.files()[K8S / "components" / "monitoring" / "generated.yaml"]
    _, rules, dashboard = objects = list(yaml.safe_load_all(text))
    assert problems(manifests(objects, rendered("overlays/gpu"))) == []
    assert rules["spec"]["groups"] == groups
    assert list(dashboard["data"].values()) == ['{"title": "Jobs"}']


@pytest.mark.parametrize("variant", VARIANTS)
def test_commands_are_accepted_by_their_programs(
    variant: str, rendered: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRECTOR_DATABASE", "sqlite://")
    (nightly,) = [each for each in rendered(f"overlays/{variant}") if each["kind"] == "CronJob"]
    commands = [nightly["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]]
    for program in ("correct", "search"):
        (job,) = rendered(f"jobs/{variant}/{program}")
        *outer, inner = job["spec"]["entrypoint"].split(" -- ")
        commands += [shlex.split(inner), *(shlex.split(f"{each} -- {inner}") for each in outer)]
        assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["working_dir"].startswith("s3://")
    for python, option, module, *arguments in commands:
        assert (python, option) == ("python", "-m")
        check_module(module, arguments)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_endpoint_is_the_application_of_serving(variant: str, rendered: Render) -> None:
    (service,) = [each for each in rendered(f"overlays/{variant}") if each["kind"] == "RayService"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(config)
    settings = ServingSettings.model_validate(config["applications"][0]["args"])
    assert str(settings.ingress.keys) == ray_pods.KEYS, "nobody draws without a key"
    (group, *_) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert settings.engine_gpus == float(limits.get("nvidia.com/gpu", 0))
    assert group["maxReplicas"] >= settings.engines.most, "an engine takes a worker"


def test_a_gpu_worker_has_the_memory_that_the_planner_asks_for() -> None:
    config = configuration("sd3.5-medium")
    plan = plan_packs(
        config,
        [HyperParameters()],
        resolution=1024,
        vae_scale_factor=VAE_SCALE_FACTOR,
        tokens=TOKENS,
        memory_bytes=int(ray_pods.GPU_MEMORY_MIB * 2**20 * _MEMORY_SHARE["cuda"]),
        lanes=1,
        dtype=torch.bfloat16,
    )
    assert not plan.checkpointing and not plan.offload

    # The text encoders by their published configurations; no weights are made.
    with torch.device("meta"):
        encoders = [
            T5EncoderModel(
                T5Config(
                    d_model=4096, d_ff=10240, num_heads=64, num_layers=24, feed_forward_proj="gated-gelu"
                )
            ),
            *(
                CLIPTextModelWithProjection(
                    CLIPTextConfig(
                        hidden_size=width,
                        intermediate_size=4 * width,
                        num_hidden_layers=layers,
                        num_attention_heads=width // 64,
                        projection_dim=width,
                    )
                )
                for width, layers in ((768, 12), (1280, 32))
            ),
        ]
    texts = 2 * sum(each.numel() for encoder in encoders for each in encoder.parameters()) / 2**30
    transformer = 2 * TransformerCost.of(config).parameters / 2**30
    assert (round(texts, 1), round(transformer, 1)) == (10.4, 4.2), "as the constant's text says"
    assert ray_pods.GPU_WORKER_GIB - ray_pods.OBJECT_STORE_GIB - texts - transformer >= 7
