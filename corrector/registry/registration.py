"""Registers a finished prompt in MLflow exactly once.

MLflow's REST API has neither transactions nor locks, and a lock in a file or in S3 would not bind another
machine. But version numbers are ordered: a new version has the highest number plus one, under a primary key, and the
number of a deleted version is never used again. Therefore

- a process that creates version n and then lists the versions sees every version below n. So all processes find the
  same smallest number among the versions of one piece of work (tag `work_id`);
- the version with that number is *the* version. A process that made another one deletes it and uses the first. No
  alias names the other one;
- a version is finished when it has the tag `registration`. The steps before that tag follow from the record, so
  several processes may do them at once, or again after a crash, and the result is the same.

The run is made before the version, and is complete when a version names it. Only one process writes a run; it
deletes the run if it is not needed. `garbage` finds what a killed process leaves: a run without version, or a second
version without `registration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corrector.record.correction_record import ADAPTER_FOLDER, CorrectionRecord
from corrector.registry.download import check_adapter
from corrector.registry.failures import RegistryError
from corrector.registry.mlflow_run import delete_run, log_run
from corrector.registry.model_folder import adapter_source
from corrector.registry.models import ModelVersion
from corrector.registry.references import CANDIDATE, first_version, model_name
from corrector.registry.store import Store, open_store
from corrector.registry.tags import COMPLETE, DECISION, SHA256, STATUS, WORK_ID, describe, record_tags

_DESCRIPTION_LENGTH = 5000


@dataclass(frozen=True)
class RegisteredVersion:
    """A finished prompt in the registry.

    Attributes:
        name: The registered model's name.
        version: The version's number; None for a failed prompt, which has a run and no version.
        run_id: The MLflow run that holds the artifacts.
        aliases: Aliases of this version now.
        sha256: SHA-256 of the adapter's weights file; None for a failed prompt.
        source: The artifact address that the version names; None for a failed prompt.
    """

    name: str
    version: str | None
    run_id: str
    aliases: tuple[str, ...]
    sha256: str | None
    source: str | None


class OtherBytes(RegistryError):
    """This piece of work is registered already with other bytes, as the version `registered`."""

    def __init__(self, message: str, registered: RegisteredVersion) -> None:
        super().__init__(message)
        self.registered = registered


def register(folder: Path, *, tracking_uri: str | None, root: Path) -> RegisteredVersion:
    """Register the record in `folder`: a run, and for an adapter a version, `candidate` if the gate passed.

    It may be called again for the same record, by several processes and machines and after a crash at any point: it returns
    the same version, and moves no alias that people have moved since.

    Args:
        folder: A record folder (`CorrectionRecord.save`); a `review.html` in it becomes an artifact.
        tracking_uri: Address of an MLflow server; None for the local registry in `root`.
        root: Folder of the local registry; not used with a server.

    Raises:
        RecordError: The folder is no record, or its adapter's bytes are not those that the record names.
        RegistryError: MLflow failed, or the adapter cannot be used or is of another base than the record's.
        OtherBytes: This work is registered with other bytes; nothing was changed.
    """
    record = CorrectionRecord.load(folder)
    record.verify(folder)
    name = model_name(record.name)
    if record.status != "failed":
        check_adapter(folder / ADAPTER_FOLDER, record.base_revision, str(folder))
    with open_store(tracking_uri, root, writing=True) as store:
        if record.status == "failed":
            return RegisteredVersion(name, None, log_run(store, record, folder)[0], (), None, None)
        version = _the_version(store, name, record) or _make_version(store, name, record, folder)
        if COMPLETE not in version.tags:
            _update_candidate(store, name, record)
            store.models.set_version_tag(name, version.version, COMPLETE, "complete")
        return _described(store, version)


def _the_version(store: Store, name: str, record: CorrectionRecord) -> ModelVersion | None:
    """The version of the record's work, finished or not; OtherBytes if its bytes differ from the record's."""
    first = first_version(store, name, record.work_id)
    if first is not None and first.tags.get(SHA256) != record.adapter_sha256:
        raise OtherBytes(
            f"{name}/{first.version}: holds this work with SHA-256 {first.tags.get(SHA256)}, and these bytes are "
            f"{record.adapter_sha256}; a version never changes: use that one, delete it first, or train with another seed",
            _described(store, first),
        )
    return first


def _make_version(store: Store, name: str, record: CorrectionRecord, folder: Path) -> ModelVersion:
    """Make a version, or return the one that another process made first; see the module's docstring."""
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
    made = store.client.create_model_version(
        name, adapter_source(run_id), run_id, tags=record_tags(record), description=describe(record)
    )
    return ModelVersion.of(made)


def _update_candidate(store: Store, name: str, record: CorrectionRecord) -> None:
    """Set `candidate` to the newest version that passed the gate and awaits review.

    Several registrations and reviews of one name may run at once. Each reads the versions again after it moved the alias, so
    the last one to move it has seen the newest versions and decisions.
    """
    if record.status != "corrected":
        return
    named: str | None = None
    while named != (newest := _newest_unreviewed(store, name)):
        if newest is not None:
            store.models.set_alias(name, CANDIDATE, newest)
        elif named is not None:
            store.remove_alias(name, CANDIDATE, named)
        named = newest


def _newest_unreviewed(store: Store, name: str) -> str | None:
    """The newest version that passed the gate and that no reviewer decided against; None where that one was promoted.

    Of several versions of one piece of work only the first counts.
    """
    first: dict[str, ModelVersion] = {}
    for version in store.models.versions(name, **{STATUS: "corrected"}):
        work = version.tags.get(WORK_ID)
        # MLflow reads versions before their tags: a version that is deleted in between has no tags.
        if work is not None and (work not in first or int(version.version) < int(first[work].version)):
            first[work] = version
    decisions = {int(version.version): version.tags.get(DECISION) for version in first.values()}
    newest = max((n for n, decision in decisions.items() if decision in (None, "promoted")), default=None)
    return None if newest is None or decisions[newest] is not None else str(newest)


def _described(store: Store, made: ModelVersion) -> RegisteredVersion:
    """The version as it is now, with its aliases."""
    version = store.models.version(made.name, made.version)
    if version is None:
        raise RegistryError(f"{made.name}/{made.version}: was deleted while it was registered")
    return RegisteredVersion(
        name=version.name,
        version=version.version,
        run_id=version.run_id,
        aliases=version.aliases,
        sha256=version.tags[SHA256],
        source=version.source,
    )
