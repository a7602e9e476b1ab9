"""Finds and removes what interrupted registrations left behind.

It finds four kinds of leftovers that are older than a bound: runs without a version whose prompt did not fail;
unfinished versions of work that has an earlier version (see `registration`); artifacts of deleted runs; and, in a
local registry, folders of artifacts without a run.

It keeps versions that are finished or have an alias, runs that a version or another run refers to, runs that were
not made by a registration, and files outside the folder of a local registry.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corrector.registry.failures import RegistryError
from corrector.registry.local import refuse_outside
from corrector.registry.mlflow_run import BEGAN, EXPERIMENT, delete_run
from corrector.registry.references import Version
from corrector.registry.store import Store, open_store
from corrector.registry.tags import STATUS, WORK_ID

if TYPE_CHECKING:
    from mlflow.entities import Run

OLDER_THAN = timedelta(days=30)

_PARENTS = ("mlflow.parentRunId", "lineage.parent_run", "lineage.search_run")


@dataclass(frozen=True)
class Leftover:
    """A run, version or folder that is not needed; `identity` is a run's id, NAME/VERSION, or a folder's path."""

    kind: Literal["run", "version", "artifacts", "folder"]
    identity: str
    why: str
    since: datetime


def collect_garbage(
    *, tracking_uri: str | None, root: Path, older_than: timedelta = OLDER_THAN, delete: bool = False
) -> list[Leftover]:
    """Find what interrupted registrations left behind, and remove it if `delete`.

    Artifacts are removed before the run that names them, so an interrupted removal is found again.

    Raises:
        RegistryError: `older_than` is negative, a folder of artifacts is outside of a local registry, or MLflow failed.
    """
    if older_than < timedelta(0):
        raise RegistryError(f"older than {older_than}: expected no negative time")
    with open_store(tracking_uri, root, writing=delete) as store:
        before = datetime.now(UTC) - older_than
        found = [leftover for leftover in _leftovers(store) if leftover.since < before]
        if delete:
            for leftover in found:
                _remove(store, leftover)
        return found


def _leftovers(store: Store) -> Iterator[Leftover]:
    versions = [Version.of(version, {}) for version in store.models.versions()]
    aliased = {(item.name, number) for item in store.models.all() for number in item.aliases.values()}
    second = [version for version in _second(versions) if (version.name, version.number) not in aliased]
    for version in second:
        yield Leftover("version", str(version), "another version of the same work was first", version.created)
    experiment = store.client.get_experiment_by_name(EXPERIMENT)
    experiments = [experiment.experiment_id] if experiment else []
    active = list(store.all_runs(experiments)) if experiments else []
    deleted = list(store.all_runs(experiments, stage="deleted")) if experiments else []
    needed = {version.run_id for version in versions if version not in second}
    needed |= {run.data.tags[key] for run in active for key in _PARENTS if key in run.data.tags}
    for run in active:
        tags, run_id = run.data.tags, run.info.run_id
        is_registration = WORK_ID in tags and BEGAN in tags
        if is_registration and tags.get(STATUS) != "failed" and run_id not in needed:
            yield Leftover("run", run_id, "its registration was interrupted, or lost", _began(run))
    for run in deleted:
        run_id = run.info.run_id
        if BEGAN in run.data.tags and run_id not in needed and store.artifacts(run_id):
            yield Leftover("artifacts", run_id, "its run was deleted", _began(run))
    if store.root is not None:
        yield from _folders_without_run(store, store.root)


def _second(versions: list[Version]) -> list[Version]:
    """Unfinished versions of work that has an earlier version."""
    first: dict[tuple[str, str], int] = {}
    for version in versions:
        work = (version.name, version.work_id)
        first[work] = min(int(version.number), first.get(work, int(version.number)))
    return [
        version
        for version in versions
        if version.work_id
        and not version.complete
        and int(version.number) > first[version.name, version.work_id]
    ]


def _folders_without_run(store: Store, root: Path) -> Iterator[Leftover]:
    from mlflow.entities import ViewType

    experiments = [found.experiment_id for found in store.client.search_experiments(view_type=ViewType.ALL)]
    runs = {run.info.run_id for run in store.all_runs(experiments, stage="all")}
    for folder in sorted((root / "artifacts").glob("*")):
        if folder.is_dir() and not folder.is_symlink() and folder.name not in runs:
            since = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            yield Leftover("folder", str(folder), "no run of that name", since)


def _began(run: Run) -> datetime:
    """The time when the run's registration began. A tag that cannot be read counts as new, so the run stays."""
    try:
        began = datetime.fromisoformat(run.data.tags[BEGAN])
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return began if began.tzinfo else began.replace(tzinfo=UTC)


def _remove(store: Store, leftover: Leftover) -> None:
    identity = leftover.identity
    if leftover.kind == "version":
        name, _, number = identity.rpartition("/")
        store.client.delete_model_version(name, number)
    elif leftover.kind == "folder":
        refuse_outside(store.uri, Path(identity).absolute().as_uri())
        shutil.rmtree(identity)
    else:
        refuse_outside(store.uri, store.artifact_address(identity))
        (delete_run if leftover.kind == "run" else Store.delete_artifacts)(store, identity)
