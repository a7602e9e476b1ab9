"""Restores the record folder of a prompt that was registered before, so that it is not trained again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from corrector.files import replace_folder, staging_folder
from corrector.preference.attached import ATTACHED_FILE
from corrector.record.archive import ARCHIVE_FILE, unpack_images
from corrector.record.correction_record import ADAPTER_FOLDER, CorrectionRecord
from corrector.registry.download import download_adapter, read_record
from corrector.registry.mlflow_run import REVIEW_PAGE
from corrector.registry.references import Reference, Version, first_version, model_name, resolve
from corrector.registry.store import open_store, registry_exists
from corrector.registry.tags import COMPLETE

RESTORED_FILE = "restored.json"
"""Name of the file that says which registry version a restored record came from."""

_MAX_IMAGES_BYTES = 4 * 1024**3
_MAX_PAGE_BYTES = 256 * 1024**2


def find_works(names: Mapping[str, str], *, tracking_uri: str | None, root: Path) -> dict[str, Version]:
    """Find the finished versions of pieces of work.

    Args:
        names: Work id -> the prompt's name.

    Returns:
        Work id -> version, for registered work.

    Raises:
        RegistryError: The registry fails.
    """
    if not registry_exists(tracking_uri, root):
        return {}
    known: dict[str, Version] = {}
    with open_store(tracking_uri, root, writing=False) as store:
        for work_id, name in names.items():
            first = first_version(store, model_name(name), work_id)
            if first is not None and COMPLETE in first.tags:
                known[work_id] = Version.of(first, {})
    return known


def restore_record(version: Version, destination: Path, *, tracking_uri: str | None, root: Path) -> Path:
    """Write the record of `version` to the folder `destination`, whole or not at all; replaces an existing folder.

    The adapter is checked against its digest. RESTORED_FILE says which version the record came from.

    Raises:
        RegistryError: Something is missing or damaged, or the registry fails.
        RecordError: The record or its images cannot be read.
    """
    with open_store(tracking_uri, root, writing=False) as store, staging_folder(destination) as staging:
        record = read_record(store, version)
        folder = staging / "record"
        folder.mkdir()
        download_adapter(store, version, staging).rename(folder / ADAPTER_FOLDER)
        unpack_images(store.file(version.run_id, ARCHIVE_FILE, staging, limit=_MAX_IMAGES_BYTES), folder)
        for name in {REVIEW_PAGE, ATTACHED_FILE}.intersection(store.artifacts(version.run_id)):
            file = store.file(version.run_id, name, staging, limit=_MAX_PAGE_BYTES)
            shutil.copyfile(file, folder / name)
        origin = json.dumps({"name": version.name, "version": version.number}) + "\n"
        (folder / RESTORED_FILE).write_text(origin, encoding="utf-8")
        record.save(folder)
        return replace_folder(folder, destination)


def restore_images(
    reference: Reference, folder: Path, *, tracking_uri: str | None, root: Path
) -> tuple[Version, CorrectionRecord]:
    """Write the images of the version that `reference` names below the new folder `folder`, where
    `CorrectionRecord.images` finds them; returns the version and its record.

    Raises:
        RegistryError: There is no such version, something is missing or damaged, or the registry fails.
        RecordError: The record or its images cannot be read.
    """
    with open_store(tracking_uri, root, writing=False) as store, staging_folder(folder) as staging:
        version = resolve(store, reference)
        record = read_record(store, version)
        unpack_images(store.file(version.run_id, ARCHIVE_FILE, staging, limit=_MAX_IMAGES_BYTES), folder)
    return version, record
