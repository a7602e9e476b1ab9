"""Opens MLflow: a tracking server if an address is given, else the local registry in a folder (`local`)."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corrector.errors import UserError
from corrector.files import staging_folder
from corrector.registry import local
from corrector.registry.failures import RegistryError, describe_failure, without_password
from corrector.registry.local_models import LocalModels
from corrector.registry.models import MlflowModels, Models, pages

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

_NO_SCHEME = re.compile(r"[\w.-]+:\d+(/.*)?", re.ASCII)
_WAITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": ("3", "1"),
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": ("1", "1"),
    "MLFLOW_HTTP_REQUEST_TIMEOUT": ("60", "10"),
}
"""Variable -> its value, and that of the first contact. With MLflow's defaults a job waits ten minutes for a server that is
down."""


@dataclass(frozen=True)
class Store:
    """An open registry.

    Attributes:
        tracking_uri: A server, or a database that is used like one. None: the local registry in `root`.
        root: Folder of a local registry, which excludes other writers by its lock. None: there is a `tracking_uri`.
    """

    tracking_uri: str | None
    root: Path | None

    @cached_property
    def uri(self) -> str:
        """The address that MLflow's client takes."""
        if self.tracking_uri is not None:
            return self.tracking_uri
        assert self.root is not None
        return local.local_uri(self.root)

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client, which is imported now (seconds); a server is asked once whether it is there."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        if self.uri.startswith(("http:", "https:")):
            _meet(self.uri)
        return client

    @cached_property
    def models(self) -> Models:
        """Registered models and versions; those of a local registry need no import of MLflow."""
        if self.root is not None:
            found = LocalModels(self.root / local.DATABASE)
            if found.is_known():
                return found
        return MlflowModels(self.client)

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
        size = self._size(run_id, path)
        if size is None:
            raise RegistryError(f"{where}: missing; {self._why_missing(run_id)}")
        if size > limit:
            raise RegistryError(f"{where}: {size:,} bytes is more than it can have ({limit:,}); not fetched")
        if self.root is not None:
            return local.artifacts_folder(self.root, run_id) / path
        found = folder / path
        found.parent.mkdir(parents=True, exist_ok=True)
        # MLflow's public method lists the folder and reads the run again: 10 requests for one file.
        self.repository(run_id)._download_file(path, str(found))
        if found.stat().st_size != size:
            raise RegistryError(f"{where}: {found.stat().st_size:,} of {size:,} bytes arrived; try again")
        return found

    def log_file(self, run_id: str, file: Path, folder: str | None) -> None:
        """Keep a copy of `file` among the artifacts of a run, in their subfolder `folder`."""
        if self.root is None:
            self.client.log_artifact(run_id, str(file), folder)
        else:
            # Replaced, not overwritten: a registry that was copied with hard links shares the former file.
            kept = local.artifacts_folder(self.root, run_id) / (folder or "") / file.name
            with staging_folder(kept) as staging:
                Path(shutil.copyfile(file, staging / file.name)).replace(kept)

    def artifacts(self, run_id: str) -> list[str]:
        """Names of the files and folders at the top of a run's artifacts; the run may have been deleted."""
        if self.root is not None:
            folder = local.artifacts_folder(self.root, run_id)
            return sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
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
            return local.artifacts_folder(self.root.resolve(), run_id).as_uri()
        address = str(self.client.get_run(run_id).info.artifact_uri)
        local.refuse_moved(self.uri, address)
        return address

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
            RegistryError: The experiment of a local registry does not keep its artifacts in a folder, or a moved one was
                opened by its database's address.
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
        local.refuse_moved(self.uri, found.artifact_location)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def remove_alias(self, name: str, alias: str, version: str) -> None:
        """Remove an alias if it names `version`."""
        found = self.models.model(name)
        if found is not None and found.aliases.get(alias) == version:
            self.models.delete_alias(name, alias)

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
        return pages(self.client.search_runs, experiments, condition, run_view_type=view)

    def _size(self, run_id: str, path: str) -> int | None:
        """Bytes of an artifact; None if there is no such file."""
        if self.root is not None:
            file = local.artifacts_folder(self.root, run_id) / path
            return file.stat().st_size if file.is_file() else None
        listed = self.repository(run_id).list_artifacts(path.rpartition("/")[0] or None)
        return next((int(item.file_size) for item in listed if item.path == path and not item.is_dir), None)

    def _why_missing(self, run_id: str) -> str:
        recorded = str(self.client.get_run(run_id).info.artifact_uri)
        if self.root is not None and recorded != self.artifact_address(run_id):
            return f"it was recorded in {recorded}, and this registry is now {self.root}: copy its artifacts there"
        return "the artifact was removed, or never written"


def registry_exists(tracking_uri: str | None, root: Path) -> bool:
    """Whether there is a registry to read: always for a server; for a local one, after its first registration."""
    return tracking_uri is not None or (root / local.DATABASE).exists()


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
    if tracking_uri is not None and _NO_SCHEME.fullmatch(tracking_uri):
        raise RegistryError(f"{tracking_uri}: no address of a server; write http://{tracking_uri}")
    _configure_mlflow()
    with ExitStack() as held, _failures_of(without_password(tracking_uri) if tracking_uri else str(root)):
        if tracking_uri is None:
            held.enter_context(local.locked(root, writing))
            local.make_tables(root)
            if writing:
                local.update_addresses(root)
        if not writing:
            held.close()
        yield Store(tracking_uri, root if tracking_uri is None else None)


def prepare(tracking_uri: str | None, root: Path) -> None:
    """Open the registry once for writing: imports MLflow and makes the tables of a new local registry (seconds).

    A job calls this while it trains, so that its first registration does not wait.

    Raises:
        RegistryError: The registry cannot be opened.
    """
    with open_store(tracking_uri, root, writing=True) as store:
        store.client.search_registered_models(max_results=1)


@cache
def _meet(uri: str) -> None:
    """Ask a server for a registered model, with shorter waits than later requests have; once in a process.

    Raises:
        MlflowException, OSError: It does not answer as MLflow.
    """
    from mlflow.tracking import MlflowClient

    with _shorter_waits():
        MlflowClient(uri, uri).search_registered_models(max_results=1)


@contextmanager
def _shorter_waits() -> Iterator[None]:
    """Waits of the first contact, except those that the user set."""
    shortened = {name: short for name, (usual, short) in _WAITS.items() if os.environ.get(name) == usual}
    usual = {name: os.environ[name] for name in shortened}
    os.environ.update(shortened)
    try:
        yield
    finally:
        os.environ.update(usual)


@contextmanager
def _failures_of(address: str) -> Iterator[None]:
    """Turn exceptions of MLflow and its libraries into a RegistryError whose message begins with `address`."""
    try:
        yield
    except UserError:
        raise
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
    for name, (usual, _) in _WAITS.items():
        os.environ.setdefault(name, usual)
    for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
