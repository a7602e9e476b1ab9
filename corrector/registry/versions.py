"""Registered adapters: a finished prompt goes into MLflow exactly once, its adapter comes back unchanged."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from corrector.registry.record import ADAPTER_FOLDER, CONFIG_FILE, WEIGHTS_FILE, CorrectionRecord, file_sha256
from corrector.registry.runs import describe, log_run, run_tags
from corrector.registry.store import RegistryError, Store, open_store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE = "candidate"
_COMPLETE = "registration"


@dataclass(frozen=True)
class RegisteredVersion:
    """What the registry knows a finished prompt by.

    Attributes:
        name: Of the registered model.
        version: None for a failed prompt, which has a run but no version.
        run_id: Of the MLflow run that holds the artifacts.
        aliases: That point at this version now.
        sha256: Of the adapter's weights file; None for a failed prompt.
        source: The artifact address that the version names; None for a failed prompt.
    """

    name: str
    version: str | None
    run_id: str
    aliases: tuple[str, ...]
    sha256: str | None
    source: str | None


def register(folder: Path, *, tracking_uri: str | None, root: Path) -> RegisteredVersion:
    """Register the record in `folder`: a run, and for an adapter a version, `candidate` if the gate passed.

    The same record again, also after a crash anywhere in between, gives the same version and moves no alias
    that people have moved since. Other bytes for the same work are another version.

    Args:
        folder: A record folder (`CorrectionRecord.save`).
        tracking_uri: Of an MLflow server; None for the local form under `root`.
        root: The local form's folder; with a server, holds nothing but a lock.

    Raises:
        RecordError: The folder is no record, or its adapter's bytes are not those that the record names.
        RegistryError: MLflow failed.
    """
    record = CorrectionRecord.load(folder)
    record.verify(folder)
    name = model_name(record.name)
    with open_store(tracking_uri, root, writing=True) as store:
        run_id = log_run(store, record, folder).info.run_id
        if record.status == "failed":
            return RegisteredVersion(name, None, run_id, (), None, None)
        version = _find_version(store, name, run_id) or _create_version(store, name, run_id, record)
        if _COMPLETE not in version.tags:
            if record.status == "corrected" and _newest(store, name) == int(version.version):
                store.client.set_registered_model_alias(name, CANDIDATE, version.version)
            store.client.set_model_version_tag(name, version.version, _COMPLETE, "complete")
        return _described(store.client.get_model_version(name, version.version))


def fetch(
    name: str, version_or_alias: str | int, destination: Path, *, tracking_uri: str | None, root: Path
) -> Path:
    """Copy a registered adapter to the folder `destination`, its weights checked against their SHA-256.

    A destination that already holds these bytes is left as it is; if anything goes wrong, nothing appears.

    Args:
        version_or_alias: A version number, or an alias such as "candidate" or "champion".

    Returns:
        The destination: pytorch_lora_weights.safetensors and adapter_config.json.

    Raises:
        RegistryError: No such model, version or alias; artifacts missing; bytes that differ from the
            registered digest; or a destination that holds something else.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        chosen = str(version_or_alias)
        if chosen.isdecimal():
            version = store.client.get_model_version(name, chosen)
        else:
            version = store.client.get_model_version_by_alias(name, chosen)
        expected = version.tags.get("adapter_sha256")
        if not expected:
            raise RegistryError(
                f"{name} version {version.version}: no tag adapter_sha256; not registered by a job"
            )
        if destination.exists():
            _check_bytes(destination, expected, f"{destination}: already there, and")
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = destination.with_name(f".{destination.name}.{os.getpid()}")
        staging.mkdir()
        try:
            adapter = _download(store, version, staging)
            _check_bytes(adapter, expected, f"{name} version {version.version}:")
            return adapter.rename(destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def model_name(name: str) -> str:
    """The registered model's name for a prompt's slug: itself where MLflow and URLs take it, else made safe.

    A name that had to change ends in a part of its hash, so that two names never meet.
    """
    safe = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")[:150]
    return (
        safe
        if safe and safe == name
        else f"{safe or 'prompt'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )


def _find_version(store: Store, name: str, run_id: str) -> ModelVersion | None:
    found = store.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return min(found, key=lambda version: int(version.version)) if found else None


def _create_version(store: Store, name: str, run_id: str, record: CorrectionRecord) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=record.prompt[:5000])
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {key: value for key, value in run_tags(record).items() if not key.startswith("mlflow.")}
    return store.client.create_model_version(
        name, f"runs:/{run_id}/{ADAPTER_FOLDER}", run_id, tags=tags, description=describe(record)
    )


def _newest(store: Store, name: str) -> int:
    return max(int(version.version) for version in store.client.search_model_versions(f"name = '{name}'"))


def _described(version: ModelVersion) -> RegisteredVersion:
    return RegisteredVersion(
        name=version.name,
        version=str(version.version),
        run_id=version.run_id,
        aliases=tuple(sorted(version.aliases)),
        sha256=version.tags["adapter_sha256"],
        source=version.source,
    )


def _download(store: Store, version: ModelVersion, staging: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    found = download_artifacts(artifact_uri=version.source, dst_path=str(staging), tracking_uri=store.uri)
    adapter = staging / "verified"
    adapter.mkdir()
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        path = Path(found) / file
        if not path.is_file():
            raise RegistryError(f"{version.name} version {version.version}: {version.source} holds no {file}")
        path.rename(adapter / file)
    return adapter


def _check_bytes(adapter: Path, expected: str, what: str) -> None:
    weights = adapter / WEIGHTS_FILE
    found = file_sha256(weights) if weights.is_file() else "of no file"
    if found != expected:
        raise RegistryError(f"{what} the SHA-256 of {WEIGHTS_FILE} is {found}; registered was {expected}")
