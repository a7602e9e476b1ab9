"""A registered version is an MLflow model that diffusers loads, with a card that people can read."""

from pathlib import Path

import mlflow
import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient

from corrector.adapters import Adapter
from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import fetch, local_uri, register
from corrector.registry.model_folder import loadable_base, write_model
from tests.support.records import small_adapter, write_record
from tests.support.registering import NAME, PERSON

TARGET = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def fitting(small_sd3: Path) -> Adapter:
    """An adapter for one Linear of the small SD3."""
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel.from_pretrained(small_sd3, subfolder="transformer")
    width = transformer.get_submodule(TARGET).in_features
    return small_adapter("fitting", paths=(TARGET,), width=width, rank=4)


def test_mlflow_and_diffusers_load_the_champion(
    root: Path, tmp_path: Path, small_sd3: Path, fitting: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusion3Pipeline

    write_record(
        tmp_path / "r", PERSON, pairs=1, guard_images=1, adapter=fitting, base_reference=str(small_sd3)
    )
    version = register(tmp_path / "r", tracking_uri=None, root=root)
    client = MlflowClient(local_uri(root), local_uri(root))
    client.set_registered_model_alias(NAME, "champion", version.version)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_uri(root))
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", local_uri(root))
    loaded = mlflow.diffusers.load_model(f"models:/{NAME}@champion").load_pipeline(device="cpu")

    plain = StableDiffusion3Pipeline.from_pretrained(small_sd3)
    plain.load_lora_weights(fetch(NAME, "champion", tmp_path / "here", tracking_uri=None, root=root))
    for pipeline in (loaded, plain):
        attention = pipeline.transformer.get_submodule(TARGET)
        down = next(iter(attention.lora_A.values())).weight
        assert torch.equal(down.detach(), fitting.weights[TARGET][0])


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    record = write_record(tmp_path / "r", PERSON, pairs=1, guard_images=1)
    folders = [write_model(record, tmp_path / "r", tmp_path / name) for name in ("one", "other")]
    one, other = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in folders
    )
    assert one == other
    assert Path("adapter_weights") / WEIGHTS_FILE in one


@pytest.mark.parametrize(
    ("reference", "revision", "expected"),
    [
        ("owner/base", "0" * 40, ("owner/base", "0" * 40)),
        ("owner/base@main", "0" * 40, ("owner/base", "0" * 40)),
        ("s3://bucket/base", "f" * 64, ("s3://bucket/base", None)),
        ("transformer.safetensors#owner/base", "f" * 64, ("transformer.safetensors#owner/base", None)),
    ],
)
def test_a_base_on_the_hub_is_pinned_to_the_commit_it_was_trained_on(
    tmp_path: Path, reference: str, revision: str, expected: tuple[str, str | None]
) -> None:
    record = write_record(
        tmp_path, PERSON, pairs=1, guard_images=1, base_reference=reference, base_revision=revision
    )
    assert loadable_base(record) == expected


def test_the_embedded_base_is_a_folder_that_diffusers_reads(tmp_path: Path) -> None:
    folder, revision = loadable_base(write_record(tmp_path, PERSON, pairs=1, guard_images=1))
    assert (Path(folder) / "model_index.json").is_file()
    assert revision is None


def test_the_environment_is_that_of_the_training(tmp_path: Path) -> None:
    packages = {"torch": "2.0.0", "diffusers": "0.40.0"}
    record = write_record(tmp_path / "r", PERSON, pairs=1, guard_images=1, lineage={"packages": packages})
    folder = write_model(record, tmp_path / "r", tmp_path / "model")
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert {"torch==2.0.0", "diffusers==0.40.0"} <= set(requirements)
    assert (
        yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["diffusers"]["diffusers_version"]
        == "0.40.0"
    )
