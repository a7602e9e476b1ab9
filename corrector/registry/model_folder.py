"""A record's adapter as an MLflow model of the diffusers flavor.

model/MLmodel            for `mlflow.diffusers.load_model`: the base, and the folder of the weights
model/README.md          the model card
model/adapter_weights/   the adapter, for diffusers' `load_lora_weights`
model/requirements.txt, conda.yaml, python_env.yaml

`mlflow.diffusers.save_model` (MLflow 3.17) is not used: it asks the hub for the *newest* commit of the base instead of the
one that the adapter was trained on, spends seconds on the environment of the machine, and writes other bytes at every call.
Here the same record gives the same files, so one attempt can overwrite the files of another.
"""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

import yaml

from corrector.base.sources import EMBEDDED_FOLDER
from corrector.record.correction_record import ADAPTER_FOLDER, CONFIG_FILE, WEIGHTS_FILE, CorrectionRecord
from corrector.registry.references import model_name
from corrector.report.model_card import model_card

MODEL_FOLDER = "model"
WEIGHTS_FOLDER = "adapter_weights"
CARD_FILE = "README.md"

_NEEDED = ("diffusers", "transformers", "torch", "peft", "safetensors", "accelerate")
_HUB_ID = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def write_model(record: CorrectionRecord, folder: Path, destination: Path) -> Path:
    """Write the model of the record in `folder` to the new folder `destination`; returns `destination`."""
    weights = destination / WEIGHTS_FOLDER
    weights.mkdir(parents=True)
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        shutil.copyfile(folder / ADAPTER_FOLDER / file, weights / file)
    (destination / CARD_FILE).write_text(model_card(record, model_name(record.name)), encoding="utf-8")
    packages = _packages(record)
    (destination / "requirements.txt").write_text("\n".join(packages) + "\n", encoding="utf-8")
    python = platform.python_version()
    environment = {
        "name": "adapter",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": packages}],
    }
    _write_yaml(destination / "conda.yaml", environment)
    _write_yaml(
        destination / "python_env.yaml",
        {"python": python, "dependencies": ["-r requirements.txt"]},
    )
    _write_ml_model(record, destination / "MLmodel")
    return destination


def adapter_source(run_id: str) -> str:
    """The address that a version of a run's adapter has as its source."""
    return f"runs:/{run_id}/{MODEL_FOLDER}"


def loadable_base(record: CorrectionRecord) -> tuple[str, str | None]:
    """The record's base and revision as `DiffusionPipeline.from_pretrained` takes them.

    A hub id and its commit are valid on any machine; a folder, also that of the embedded base, on this one. A base in S3 or
    in a single file is returned as written; to load it, call `load_pipeline(base_model=FOLDER)`.
    """
    reference = record.base_reference
    if reference == "embedded":
        return str(EMBEDDED_FOLDER), None
    path = Path(reference).expanduser()
    if path.is_dir():
        return str(path.absolute()), None
    hub = _HUB_ID.fullmatch(reference)
    if hub is None:
        return reference, None
    return hub["repository"], record.base_revision if _COMMIT.fullmatch(record.base_revision) else None


def _write_ml_model(record: CorrectionRecord, path: Path) -> None:
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    base, revision = loadable_base(record)
    model = Model(
        utc_time_created=record.created.replace(tzinfo=None),
        model_uuid=(record.adapter_sha256 or "")[:32],
        metadata={
            "work_id": record.work_id,
            "adapter_sha256": record.adapter_sha256,
            "base": record.base_reference,
            "base_revision": record.base_revision,
        },
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.string, name="prompt")]),
            outputs=Schema([ColSpec(DataType.binary, name="image")]),
            params=ParamSchema(
                [
                    ParamSpec("num_inference_steps", DataType.integer, 28),
                    ParamSpec("guidance_scale", DataType.double, 7.0),
                    ParamSpec("negative_prompt", DataType.string, ""),
                ]
            ),
        ),
    )
    model.add_flavor(
        "diffusers",
        base_model=base,
        adapter_type="lora",
        adapter_weights=WEIGHTS_FOLDER,
        diffusers_version=_version(record, "diffusers"),
        **({"base_model_revision": revision} if revision else {}),
    )
    model.add_flavor(
        "python_function",
        loader_module="mlflow.diffusers",
        python_version=platform.python_version(),
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )
    model.save(str(path))


def _packages(record: CorrectionRecord) -> list[str]:
    """The packages that load the adapter, with the versions of the machine that trained it."""
    return [f"{name}=={_version(record, name)}" for name in _NEEDED]


def _version(record: CorrectionRecord, package: str) -> str:
    from importlib.metadata import version

    trained_with = record.lineage.get("packages") or {}
    return str(trained_with.get(package) or version(package))


def _write_yaml(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
