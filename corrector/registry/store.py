"""Opens MLflow: a tracking server if an address is given, else the local registry in a folder (`local`)."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from corrector.registry import local
from corrector.registry.failures import RegistryError, describe_failure, without_password

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

_PAGE = 1000
"""Items in one answer of MLflow, which gives no more registered models at once."""
_UPSERTS = 3


@dataclass(frozen=True)
class Store:
    """An open registry.

    Attributes:
        root: Folder of a local registry, which excludes other writers by its lock. None: a server, or a database that
            is used like one.
    """

    client: MlflowClient
    uri: str
    root: Path | None

    def file(self, run_id: str, path: str, folder: Path, *, limit: int) -> Path:
        """One artifact of a run as a file on this machine: below `folder`, or in place in a local registry.

        Only this file is written, so that a server's listing does not decide which files appear on this disk.

        Args:
            path: Relative to the run's artifacts, with "/".
            limit: Bytes; a larger artifact is refused before it is fetched.

        Raises:
            RegistryError: There is no such artifact, it is larger than `limit`, or shorter than its listed size.
        """
        where = f"run {run_id}: {path}"
        repository = self.repository(run_id)
        listed = repository.list_artifacts(path.rpartition("/")[0] or None)
        size = next((item.file_size for item in listed if item.path == path and not item.is_dir), None)
        if size is None:
            raise RegistryError(f"{where}: missing; {self._why_missing(run_id)}")
        if int(size) > limit:
            raise RegistryError(
                f"{where}: {int(size):,} bytes is more than it can have ({limit:,}); not fetched"
            )
        if self.root is not None:
            found = Path(repository.download_artifacts(path))
        else:
            found = folder / path
            found.parent.mkdir(parents=True, exist_ok=True)
            # MLflow's public method lists the folder and reads the run again: 10 requests for one file.
            repository._download_file(path, str(found))
        if found.stat().st_size != int(size):
            raise RegistryError(
                f"{where}: {found.stat().st_size:,} of {int(size):,} bytes arrived; try again"
            )
        return found

    def log_file(self, run_id: str, file: Path, folder: str | None) -> None:
        """Keep a copy of `file` among the artifacts of a run, in their subfolder `folder`."""
        if self.root is None:
            self.client.log_artifact(run_id, str(file), folder)
        else:
            self.repository(run_id).log_artifact(str(file), folder)

    def artifacts(self, run_id: str) -> list[str]:
        """Names of the files and folders at the top of a run's artifacts; the run may have been deleted."""
        return [item.path for item in self.repository(run_id).list_artifacts()]

    def delete_artifacts(self, run_id: str) -> None:
        if not self.artifacts(run_id):
            return
        address = self.artifact_address(run_id)
        if address.startswith("file:"):
            # MLflow decodes the path twice, and finds no folder whose name has a percent sign.
            shutil.rmtree(local.folder_of(address))
        else:
            self.repository(run_id).delete_artifacts()

    def artifact_address(self, run_id: str) -> str:
        """URI of the folder of a run's artifacts."""
        if self.root is not None:
            return (self.root.resolve() / "artifacts" / run_id / "artifacts").as_uri()
        return str(self.client.get_run(run_id).info.artifact_uri)

    def repository(self, run_id: str) -> ArtifactRepository:
        """MLflow's repository of the artifacts of a run; the run may have been deleted."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        found: ArtifactRepository = get_artifact_repository(
            self.artifact_address(run_id), tracking_uri=self.uri, registry_uri=self.uri
        )
        return found

    def experiment(self, name: str) -> str:
        """The id of the experiment `name`, which is made or restored if needed.

        Raises:
            RegistryError: The experiment of a local registry does not keep its artifacts in a folder.
        """
        from mlflow.exceptions import MlflowException

        location = local.artifacts_uri(self.root) if self.root is not None else None
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:  # another process made it meanwhile
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if location is not None and not found.artifact_location.startswith("file:"):
            raise RegistryError(
                f'{self.root}: the experiment "{name}" keeps its artifacts in {found.artifact_location}, and a local '
                f"registry in its own folder; give --tracking-uri {self.uri}"
            )
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Set an alias to a version in one step, whichever version it named before."""
        _upsert(lambda: self.client.set_registered_model_alias(name, alias, version))

    def remove_alias(self, name: str, alias: str, version: str) -> None:
        """Remove an alias if it names `version`."""
        if str(self.client.get_registered_model(name).aliases.get(alias)) == version:
            self.client.delete_registered_model_alias(name, alias)

    def set_tag(self, name: str, version: str, key: str, value: str) -> None:
        _upsert(lambda: self.client.set_model_version_tag(name, version, key, value))

    def all_versions(self, condition: str = "") -> Iterator[ModelVersion]:
        """The versions that `condition` (MLflow's filter) chooses; MLflow leaves their aliases out."""
        return _pages(self.client.search_model_versions, condition)

    def all_models(self) -> Iterator[RegisteredModel]:
        """Every registered model with its aliases and newest version."""
        return _pages(self.client.search_registered_models)

    def all_runs(
        self,
        experiments: list[str],
        condition: str = "",
        *,
        stage: Literal["active", "deleted", "all"] = "active",
    ) -> Iterator[Run]:
        """The runs of the experiments (ids) that `condition` chooses, in this lifecycle stage."""
        from mlflow.entities import ViewType

        view = {"active": ViewType.ACTIVE_ONLY, "deleted": ViewType.DELETED_ONLY, "all": ViewType.ALL}[stage]
        return _pages(self.client.search_runs, experiments, condition, run_view_type=view)

    def _why_missing(self, run_id: str) -> str:
        recorded = str(self.client.get_run(run_id).info.artifact_uri)
        if self.root is not None and recorded != self.artifact_address(run_id):
            return f"it was recorded in {recorded}, and this registry is now {self.root}: copy its artifacts there"
        return "the artifact was removed, or never written"


def _pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """All items that one of MLflow's searches finds, fetched in pages."""
    token: str | None = None
    while True:
        page = search(*arguments, **options, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _upsert(write: Callable[[], None]) -> None:
    """Call `write`, and again if another process inserted the same row at the same time.

    MLflow looks for a row and then inserts it. If two processes find no row, the second violates the primary key; its next
    call finds the row.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(_UPSERTS):
        try:
            return write()
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST" or attempt == _UPSERTS - 1:
                raise
    return None


def registry_exists(tracking_uri: str | None, root: Path) -> bool:
    """Whether there is a registry to read: always for a server; for a local one, after its first registration."""
    return tracking_uri is not None or (root / "mlflow.db").exists()


@contextmanager
def open_store(tracking_uri: str | None, root: Path, *, writing: bool) -> Iterator[Store]:
    """Open MLflow at `tracking_uri`, or the local registry in `root` if that is None.

    Args:
        root: Made if missing; not used where there is a tracking URI.
        writing: Exclude other writers from a local registry until the context ends or the process dies.

    Raises:
        RegistryError: Any failure of MLflow, its artifact store or the disk inside the context, with the registry's
            address.
    """
    if not writing and not registry_exists(tracking_uri, root):
        raise RegistryError(
            f"{root}: no registry here; expected the folder that corrections were registered in"
        )
    _configure_mlflow()
    from mlflow.tracking import MlflowClient

    with ExitStack() as held, _failures_of(without_password(tracking_uri) if tracking_uri else str(root)):
        if tracking_uri is None:
            held.enter_context(local.locked(root, writing))
            local.make_tables(root)
            if writing:
                local.update_addresses(root)
        uri = tracking_uri or local.local_uri(root)
        if not writing:
            held.close()
        yield Store(MlflowClient(tracking_uri=uri, registry_uri=uri), uri, None if tracking_uri else root)


def prepare(tracking_uri: str | None, root: Path) -> None:
    """Open the registry once for writing: imports MLflow and makes the tables of a new local registry (seconds).

    A job calls this while it trains, so that its first registration does not wait.

    Raises:
        RegistryError: The registry cannot be opened.
    """
    with open_store(tracking_uri, root, writing=True) as store:
        store.client.search_registered_models(max_results=1)


@contextmanager
def _failures_of(address: str) -> Iterator[None]:
    """Turn exceptions of MLflow and its libraries into a RegistryError whose message begins with `address`."""
    try:
        yield
    except Exception as error:
        described = describe_failure(error)
        if described is None:
            raise
        raise RegistryError(f"{address}: {described}") from error


def _configure_mlflow() -> None:
    """Switch off usage reports, bars and announcements, and bound waits; call it before MLflow is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # With MLflow's defaults a job waits ten minutes for a server that is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
