"""Registered adapters: a finished prompt goes into MLflow exactly once, its adapter comes back unchanged.

Registering is exactly-once although MLflow's REST API has neither transactions nor locks, and a lock in a file or in S3 would
mean nothing to another machine. What the database behind MLflow does give is an order: the number of a new version is one more
than the highest there is, under a primary key, and the number of a deleted version is never given again. Hence

- whoever is given number n sees, when it looks afterwards, every version below n; so the smallest number among the versions of
  one piece of work (tag `work_id`) is known for good to everybody who looks after creating their own;
- that one is *the* version. Whoever made another deletes it, to which no alias is ever moved, and goes on with the first;
- a version counts as finished by the tag `registration`, set last and by anybody: all steps between follow from the record, so
  several processes that do them at once, or again after a crash, end in the same state.

The run comes first. It is complete when a version names it, and one process wrote it, so that nobody writes over the files of
a version; a run that lost is deleted by its writer. What a killed process leaves (a run without version, a second version
without `registration`) `collect` finds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from corrector.adapters import AdapterError, AdapterFormat, convert_adapter, load_adapter
from corrector.files import file_sha256
from corrector.record.correction import (
    ADAPTER_FOLDER,
    CONFIG_FILE,
    RECORD_FILE,
    WEIGHTS_FILE,
    CorrectionRecord,
)
from corrector.registry.model_folder import MODEL_FOLDER, WEIGHTS_FOLDER
from corrector.registry.references import CANDIDATE, Reference, Version, model_name, resolve
from corrector.registry.runs import delete_run, log_run
from corrector.registry.store import RegistryError, Store, open_store
from corrector.registry.tags import COMPLETE, SHA256, STATUS, WORK_ID, describe, record_tags

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MAX_WEIGHTS_BYTES = 2 * 1024**3
_MAX_TEXT_BYTES = 64 * 1024**2
_DESCRIPTION_LENGTH = 5000


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


class OtherBytes(RegistryError):
    """A piece of work is registered already, with other bytes than those at hand; `registered` is what stays."""

    def __init__(self, message: str, registered: RegisteredVersion) -> None:
        super().__init__(message)
        self.registered = registered


def register(folder: Path, *, tracking_uri: str | None, root: Path) -> RegisteredVersion:
    """Register the record in `folder`: a run, and for an adapter a version, `candidate` if the gate passed.

    The same record again, from any number of processes and machines and also after a crash anywhere in between, gives the
    same version and moves no alias that people have moved since.

    Args:
        folder: A record folder (`CorrectionRecord.save`); a `review.html` in it becomes an artifact.
        tracking_uri: Of an MLflow server; None for the local form under `root`.
        root: The local form's folder; not used with a server.

    Raises:
        RecordError: The folder is no record, or its adapter's bytes are not those that the record names.
        RegistryError: MLflow failed, or the adapter cannot be used or is of another base than the record's.
        OtherBytes: This work is registered with other bytes; nothing was changed.
    """
    record = CorrectionRecord.load(folder)
    record.verify(folder)
    name = model_name(record.name)
    if record.status != "failed":
        _check_adapter(folder / ADAPTER_FOLDER, record.base_revision, str(folder))
    with open_store(tracking_uri, root, writing=True) as store:
        if record.status == "failed":
            return RegisteredVersion(name, None, log_run(store, record, folder)[0], (), None, None)
        version = _the_version(store, name, record) or _make_version(store, name, record, folder)
        if COMPLETE not in version.tags:
            _point_candidate(store, name, record)
            store.set_tag(name, version.version, COMPLETE, "complete")
        return _described(store.client.get_model_version(name, version.version))


def fetch(
    name: str,
    version_or_alias: str | int,
    destination: Path,
    *,
    tracking_uri: str | None,
    root: Path,
    base_revision: str | None = None,
) -> Path:
    """Copy a registered adapter to the folder `destination`, its weights checked against their SHA-256.

    A destination that already holds these bytes is left as it is; if anything goes wrong, nothing appears.

    Args:
        version_or_alias: A version number, or an alias such as "candidate" or "champion".
        base_revision: Of the base that it is for; an adapter of another is refused. None: of any.

    Returns:
        The destination: pytorch_lora_weights.safetensors and adapter_config.json.

    Raises:
        RegistryError: No such model, version or alias; artifacts missing; bytes that differ from the
            registered digest, or are no adapter; or a destination that holds something else.
    """
    chosen = str(version_or_alias)
    reference = Reference.parse(f"{name}/{chosen}" if chosen.isdecimal() else f"{name}@{chosen}")
    with open_store(tracking_uri, root, writing=False) as store:
        version = resolve(store, reference)
        expected = expected_digest(version)
        if base_revision not in (None, version.base_revision):
            raise RegistryError(
                f"{version}: is for the base {version.base} at revision {version.base_revision}, "
                f"not {base_revision}; train the prompt again for this base"
            )
        if destination.exists():
            _check_digest(destination / WEIGHTS_FILE, expected, f"{destination}: already there, and")
            return destination
        with staging_beside(destination) as staging:
            return download_adapter(store, version, staging).rename(destination)


def export(
    reference: Reference, destination: Path, to: AdapterFormat, *, tracking_uri: str | None, root: Path
) -> Path:
    """Write the adapter that `reference` names to `destination` in the format `to`; returns `destination`.

    "diffusers" is the registered file, byte for byte; "peft" is a folder, too, and "comfyui" one .safetensors file. A bare
    name means its champion. The adapter is checked against its digest first.

    Raises:
        RegistryError: As of `fetch`, or `destination` is there already.
        AdapterError: `to` is no format, or cannot be written to such a destination.
    """
    if destination.exists():
        raise RegistryError(f"{destination}: is there already; name a new one")
    with open_store(tracking_uri, root, writing=False) as store, staging_beside(destination) as staging:
        adapter = download_adapter(store, resolve(store, reference), staging)
        if to == "diffusers":
            adapter.rename(destination)
        else:
            convert_adapter(adapter, destination, to)
    return destination


def download_adapter(store: Store, version: Version, staging: Path) -> Path:
    """Fetch and check the adapter of `version`; returns a folder in `staging` that holds its two files and nothing else.

    Raises:
        RegistryError: A file is missing or too large, the bytes are not those registered, or no usable adapter.
    """
    expected = expected_digest(version)
    weights = weights_file(store, version, staging)
    _check_digest(weights, expected, f"{version}:")
    adapter = staging / "verified"
    adapter.mkdir()
    config = store.file(
        version.run_id, f"{MODEL_FOLDER}/{WEIGHTS_FOLDER}/{CONFIG_FILE}", staging, limit=_MAX_TEXT_BYTES
    )
    for file in (weights, config):
        shutil.copyfile(file, adapter / file.name)
    _check_adapter(adapter, version.base_revision, str(version))
    return adapter


def weights_file(store: Store, version: Version, folder: Path) -> Path:
    """The weights of `version` on this machine, below `folder` or in place; their bytes are not checked.

    Raises:
        RegistryError: They are missing or too large, or the version names another place than its own run.
    """
    if version.source != _source(version.run_id):
        raise RegistryError(
            f"{version}: its source is {version.source!r}, not its own run's {MODEL_FOLDER}/; not registered by a job"
        )
    path = f"{MODEL_FOLDER}/{WEIGHTS_FOLDER}/{WEIGHTS_FILE}"
    return store.file(version.run_id, path, folder, limit=MAX_WEIGHTS_BYTES)


def read_record(store: Store, version: Version) -> CorrectionRecord:
    """The record that `version` was registered from.

    Raises:
        RegistryError: It is missing, or about other bytes than the version's.
        RecordError: It cannot be read.
    """
    with tempfile.TemporaryDirectory() as temporary:
        found = store.file(version.run_id, RECORD_FILE, Path(temporary), limit=_MAX_TEXT_BYTES)
        record = CorrectionRecord.load(found.parent)
    if record.adapter_sha256 != version.sha256:
        raise RegistryError(
            f"{version}: tagged with SHA-256 {version.sha256 or 'none'}, its record names {record.adapter_sha256}; "
            "one of them was changed since it was registered"
        )
    return record


def expected_digest(version: Version) -> str:
    """The SHA-256 of the version's weights as registered; RegistryError where it has none."""
    if not version.sha256:
        raise RegistryError(f"{version}: no tag {SHA256}; not registered by a job")
    return version.sha256


def _the_version(store: Store, name: str, record: CorrectionRecord) -> ModelVersion | None:
    """The one version of the record's work, finished or not; OtherBytes where its bytes are others."""
    found = list(store.all_versions(f"name = '{name}' and tags.{WORK_ID} = '{record.work_id}'"))
    if not found:
        return None
    first = min(found, key=lambda version: int(version.version))
    if first.tags.get(SHA256) != record.adapter_sha256:
        raise OtherBytes(
            f"{name}/{first.version}: holds this work with SHA-256 {first.tags.get(SHA256)}, and these bytes are "
            f"{record.adapter_sha256}; a version never changes: use that one, delete it first, or train with another seed",
            _described(store.client.get_model_version(name, first.version)),
        )
    return first


def _make_version(store: Store, name: str, record: CorrectionRecord, folder: Path) -> ModelVersion:
    """Make a version, or find that another process was first; see the module's text."""
    run_id, is_own = log_run(store, record, folder)
    first = _the_version(store, name, record)
    if first is None:
        own = _create_version(store, name, run_id, record)
        try:
            first = _the_version(store, name, record) or own
        except OtherBytes:
            store.client.delete_model_version(name, own.version)
            raise
        if first.version != own.version:
            store.client.delete_model_version(name, own.version)
    if is_own and first.run_id != run_id:
        delete_run(store, run_id)
    return first


def _create_version(store: Store, name: str, run_id: str, record: CorrectionRecord) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=record.prompt[:_DESCRIPTION_LENGTH])
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return store.client.create_model_version(
        name, _source(run_id), run_id, tags=record_tags(record), description=describe(record)
    )


def _point_candidate(store: Store, name: str, record: CorrectionRecord) -> None:
    """Let `candidate` be the newest version that passed the gate.

    Two that register versions of one name may overtake each other: each looks again after it has moved the alias, so that
    the last to move it has seen the newest.
    """
    if record.status != "corrected":
        return
    pointed = None
    while pointed != (newest := _newest_corrected(store, name)):
        store.set_alias(name, CANDIDATE, newest)
        pointed = newest


def _newest_corrected(store: Store, name: str) -> str:
    """The newest of the versions that are here to stay: the first of each piece of work.

    MLflow reads versions and their tags one after the other: one that is deleted in between comes without tags.
    """
    first: dict[str, int] = {}
    for version in store.all_versions(f"name = '{name}' and tags.{STATUS} = 'corrected'"):
        work, number = version.tags.get(WORK_ID), int(version.version)
        if work is not None:
            first[work] = min(number, first.get(work, number))
    return str(max(first.values()))


def _source(run_id: str) -> str:
    return f"runs:/{run_id}/{MODEL_FOLDER}"


def _described(version: ModelVersion) -> RegisteredVersion:
    return RegisteredVersion(
        name=version.name,
        version=str(version.version),
        run_id=version.run_id,
        aliases=tuple(sorted(version.aliases)),
        sha256=version.tags[SHA256],
        source=version.source,
    )


@contextmanager
def staging_beside(destination: Path) -> Iterator[Path]:
    """A folder on the same disk as `destination`, from which it can be moved there in one step; removed at the end."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = destination.with_name(f".{destination.name}.{os.getpid()}")
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_digest(weights: Path, expected: str, what: str) -> None:
    found = file_sha256(weights) if weights.is_file() else "of no file"
    if found != expected:
        raise RegistryError(f"{what} the SHA-256 of {WEIGHTS_FILE} is {found}; registered was {expected}")


def _check_adapter(folder: Path, base_revision: str, what: str) -> None:
    """Refuse what is no adapter by its keys, shapes and sizes, and what says itself that it is for another base."""
    try:
        adapter = load_adapter(folder)
    except AdapterError as error:
        raise RegistryError(f"{what}: {error}") from error
    if adapter.base_revision not in (None, base_revision):
        raise RegistryError(
            f"{what}: the adapter was trained on the base revision {adapter.base_revision}, "
            f"and its record says {base_revision}; register it with the record of its own training"
        )
