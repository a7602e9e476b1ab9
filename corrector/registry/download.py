"""Reads adapters and records from the registry, and checks them against their registered digests."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from corrector.files import file_sha256, publish_folder, staging_folder
from corrector.record.correction_record import CONFIG_FILE, RECORD_FILE, WEIGHTS_FILE, CorrectionRecord
from corrector.registry.failures import RegistryError
from corrector.registry.model_folder import MODEL_FOLDER, WEIGHTS_FOLDER, adapter_source
from corrector.registry.references import Reference, Version, resolve
from corrector.registry.store import Store, open_store
from corrector.registry.tags import SHA256

if TYPE_CHECKING:
    from corrector.adapters import AdapterFormat

MAX_WEIGHTS_BYTES = 2 * 1024**3
_MAX_TEXT_BYTES = 64 * 1024**2


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

    A destination that holds these bytes already is not changed. After an error no files are left.

    Args:
        version_or_alias: A version number, or an alias such as "candidate" or "champion".
        base_revision: An adapter for another revision of the base is refused. None: any revision is accepted.

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
        if not destination.exists():
            # Another process may fetch the same version at the same time.
            with staging_folder(destination) as staging, suppress(FileExistsError):
                return publish_folder(download_adapter(store, version, staging), destination)
        _check_digest(destination / WEIGHTS_FILE, expected, f"{destination}: already there, and")
        return destination


def export(
    reference: Reference, destination: Path, to: AdapterFormat, *, tracking_uri: str | None, root: Path
) -> Path:
    """Write the adapter that `reference` names to `destination` in the format `to`; returns `destination`.

    "diffusers" is a folder with the registered file, byte for byte, unless its alpha is not its rank, as earlier versions
    registered it: then the scale is put into its weights. "peft" is a folder; "comfyui" is one .safetensors file. A name
    alone means its champion. The adapter is checked against its digest first.

    Raises:
        RegistryError: As for `fetch`, or `destination` exists.
        AdapterError: `to` is no format, or cannot be written to such a destination.
    """
    if destination.exists():
        raise RegistryError(f"{destination}: is there already; name a new one")
    with open_store(tracking_uri, root, writing=False) as store, staging_folder(destination) as staging:
        adapter = download_adapter(store, resolve(store, reference), staging)
        from corrector.adapters import convert_adapter, load_adapter

        loaded = load_adapter(adapter)
        if to != "diffusers" or loaded.alpha != loaded.rank:
            convert_adapter(adapter, destination, to)
            return destination
        try:
            return publish_folder(adapter, destination)
        except FileExistsError:
            raise RegistryError(f"{destination}: is there already; name a new one") from None


def download_adapter(store: Store, version: Version, staging: Path) -> Path:
    """Fetch and check the adapter of `version`; returns a folder in `staging` that holds only its two files.

    Raises:
        RegistryError: A file is missing or too large, the bytes are not those registered, or no usable adapter.
    """
    files = verified_files(store, version, staging)
    adapter = staging / "verified"
    adapter.mkdir()
    for file in files:
        shutil.copyfile(file, adapter / file.name)
    check_adapter(adapter, version.base_revision, str(version))
    return adapter


def verified_files(store: Store, version: Version, staging: Path) -> tuple[Path, Path]:
    """Weights and configuration of `version`: below `staging`, or in place in a local registry. The weights' bytes are those
    registered, which registration has checked to be an adapter for its base.

    Raises:
        RegistryError: A file is missing or too large, or the bytes are not those registered.
    """
    expected = expected_digest(version)
    weights = weights_file(store, version, staging)
    _check_digest(weights, expected, f"{version}:")
    config = f"{MODEL_FOLDER}/{WEIGHTS_FOLDER}/{CONFIG_FILE}"
    return weights, store.file(version.run_id, config, staging, limit=_MAX_TEXT_BYTES)


def weights_file(store: Store, version: Version, folder: Path) -> Path:
    """The weights file of `version`: below `folder`, or in place in a local registry. Its bytes are not checked.

    Raises:
        RegistryError: They are missing or too large, or the version names another place than its own run.
    """
    if version.source != adapter_source(version.run_id):
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
    """The registered SHA-256 of the version's weights; RegistryError if it has none."""
    if not version.sha256:
        raise RegistryError(f"{version}: no tag {SHA256}; not registered by a job")
    return version.sha256


def _check_digest(weights: Path, expected: str, what: str) -> None:
    found = file_sha256(weights) if weights.is_file() else "of no file"
    if found != expected:
        raise RegistryError(f"{what} the SHA-256 of {WEIGHTS_FILE} is {found}; registered was {expected}")


def check_adapter(folder: Path, base_revision: str, what: str) -> None:
    """Raise RegistryError if `folder` holds no usable adapter, or one for another base revision."""
    from corrector.adapters import AdapterError, load_adapter  # torch takes seconds to import

    try:
        adapter = load_adapter(folder)
    except AdapterError as error:
        raise RegistryError(f"{what}: {error}") from error
    if adapter.base_revision not in (None, base_revision):
        raise RegistryError(
            f"{what}: the adapter was trained on the base revision {adapter.base_revision}, "
            f"and its record says {base_revision}; register it with the record of its own training"
        )
