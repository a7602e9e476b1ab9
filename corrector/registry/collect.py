"""What interrupted registrations left behind, and its removal.

Found are, if older than a bound: runs that no version names, although their prompt did not fail; second versions of a piece of
work that lost, see `versions`; artifacts of runs that were deleted; and, of a local form, folders of artifacts without a run.
Never touched are a version with an alias, one that is finished, a run that a version or another run refers to, a run that no
registration made, and anything younger.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corrector.registry.references import Version
from corrector.registry.runs import BEGAN, EXPERIMENT, delete_artifacts, delete_run, has_artifacts
from corrector.registry.store import RegistryError, Store, open_store
from corrector.registry.tags import STATUS, WORK_ID

if TYPE_CHECKING:
    from mlflow.entities import Run

OLDER_THAN = timedelta(days=30)

_PARENTS = ("mlflow.parentRunId", "lineage.parent_run", "lineage.search_run")
_PAGE = 1000


@dataclass(frozen=True)
class Garbage:
    """One thing that nothing needs: what it is, what it is called, and since when it is there."""

    kind: Literal["run", "version", "artifacts", "folder"]
    identity: str
    why: str
    since: datetime


def collect(
    *, tracking_uri: str | None, root: Path, older_than: timedelta = OLDER_THAN, delete: bool = False
) -> list[Garbage]:
    """Find what interrupted registrations left behind, and remove it if `delete` says so.

    Removal takes artifacts first, then what names them, so that one that is interrupted is found again.

    Raises:
        RegistryError: `older_than` is negative, or the registry fails.
    """
    if older_than < timedelta(0):
        raise RegistryError(f"older than {older_than}: expected no negative time")
    with open_store(tracking_uri, root, writing=delete) as store:
        before = datetime.now(UTC) - older_than
        found = [garbage for garbage in _garbage(store, root) if garbage.since < before]
        if delete:
            for garbage in found:
                _remove(store, garbage)
        return found


def _garbage(store: Store, root: Path) -> Iterator[Garbage]:
    versions = [Version.of(version, {}) for version in store.all_versions()]
    pointed = {(item.name, str(number)) for item in store.all_models() for number in item.aliases.values()}
    lost = [version for version in _lost(versions) if (version.name, version.number) not in pointed]
    for version in lost:
        yield Garbage("version", str(version), "another version of the same work was first", version.created)
    experiment = store.client.get_experiment_by_name(EXPERIMENT)
    active = list(_runs(store, experiment.experiment_id, deleted=False)) if experiment else []
    deleted = list(_runs(store, experiment.experiment_id, deleted=True)) if experiment else []
    needed = {version.run_id for version in versions if version not in lost}
    needed |= {run.data.tags[key] for run in active for key in _PARENTS if key in run.data.tags}
    for run in active:
        tags = run.data.tags
        if (
            WORK_ID in tags
            and BEGAN in tags
            and tags.get(STATUS) != "failed"
            and run.info.run_id not in needed
        ):
            yield Garbage("run", run.info.run_id, "its registration was interrupted, or lost", _began(run))
    for run in deleted:
        if BEGAN in run.data.tags and run.info.run_id not in needed and has_artifacts(store, run.info.run_id):
            yield Garbage("artifacts", run.info.run_id, "its run was deleted", _began(run))
    if store.artifacts is not None:
        yield from _folders_without_run(root, {run.info.run_id for run in [*active, *deleted]})


def _lost(versions: list[Version]) -> list[Version]:
    """Unfinished versions of works that have an earlier version."""
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


def _runs(store: Store, experiment: str, *, deleted: bool) -> Iterator[Run]:
    from mlflow.entities import ViewType

    token: str | None = None
    while True:
        page = store.client.search_runs(
            [experiment],
            run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
            max_results=_PAGE,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _folders_without_run(root: Path, runs: set[str]) -> Iterator[Garbage]:
    for folder in sorted((root / "artifacts").glob("*")):
        if folder.is_dir() and not folder.is_symlink() and folder.name not in runs:
            since = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            yield Garbage("folder", str(folder), "no run of that name", since)


def _began(run: Run) -> datetime:
    """When its registration began; a tag that somebody defaced makes it young for ever."""
    try:
        began = datetime.fromisoformat(run.data.tags[BEGAN])
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return began if began.tzinfo else began.replace(tzinfo=UTC)


def _remove(store: Store, garbage: Garbage) -> None:
    if garbage.kind == "version":
        name, _, number = garbage.identity.rpartition("/")
        store.client.delete_model_version(name, number)
    elif garbage.kind == "folder":
        shutil.rmtree(garbage.identity)
    elif garbage.kind == "run":
        delete_run(store, garbage.identity)
    else:
        delete_artifacts(store, garbage.identity)
