"""Opening MLflow: a tracking server where one is given, else a SQLite file and a folder under a root.

ROOT/mlflow.db      runs, registered models, versions, aliases, tags
ROOT/artifacts/     what runs keep: adapters, images, scorecards
ROOT/.lock          held while a process writes: SQLite has room for one writer, and the others wait here in peace

Nothing relies on that lock but the making of the tables; see `versions` for what keeps writers on many machines apart.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from corrector.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

# As many registered models as MLflow gives at once.
_PAGE = 1000
_MESSAGE_LENGTH = 600
_UPSERTS = 3
# MLflow's messages hold the address of an artifact that goes through its server, below that of its run.
_ARTIFACT = re.compile(
    r"/mlflow-artifacts/(artifacts|presigned)(/|\?path=)[^/\s]+/[^/\s]+/artifacts/(?P<path>[^\s?)]+)"
)
_NO_SERVER = ("Failed to establish a new connection", "NameResolutionError", "ConnectTimeoutError")


class RegistryError(UserError):
    """The registry cannot be reached or read, or what it holds is not what was registered."""


@dataclass(frozen=True)
class Store:
    """An open registry; `artifacts` is where a new experiment keeps its files, None: the server's choice."""

    client: MlflowClient
    uri: str
    artifacts: str | None

    @property
    def is_exclusive(self) -> bool:
        """Whether nobody else writes while this is open for writing: the local form, whose lock is held."""
        return self.artifacts is not None

    def file(self, run_id: str, path: str, folder: Path, *, limit: int) -> Path:
        """One artifact of a run as a file on this machine: below `folder`, or in place where this machine keeps it.

        Only the file asked for is written, so that no listing of a server decides what appears on this disk.

        Args:
            path: Relative to the run's artifacts, with "/".
            limit: Bytes; a larger artifact is refused before it is fetched.

        Raises:
            RegistryError: There is no such artifact, it is larger than `limit`, or came shorter than it is listed.
        """
        where = f"run {run_id}: {path}"
        repository = self.repository(run_id)
        listed = repository.list_artifacts(path.rpartition("/")[0] or None)
        size = next((item.file_size for item in listed if item.path == path and not item.is_dir), None)
        if size is None:
            raise RegistryError(f"{where}: missing; the artifact was removed, or never written")
        if int(size) > limit:
            raise RegistryError(
                f"{where}: {int(size):,} bytes is more than it can have ({limit:,}); not fetched"
            )
        if self.artifacts is not None:
            found = Path(repository.download_artifacts(path))
        else:
            found = folder / path
            found.parent.mkdir(parents=True, exist_ok=True)
            # MLflow's public method lists the folder again, and asks for the run again: 10 requests for one file.
            repository._download_file(path, str(found))
        if found.stat().st_size != int(size):
            raise RegistryError(
                f"{where}: {found.stat().st_size:,} of {int(size):,} bytes arrived; try again"
            )
        return found

    def repository(self, run_id: str) -> ArtifactRepository:
        """Where the artifacts of a run, which may have been deleted, lie."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        address = self.client.get_run(run_id).info.artifact_uri
        found: ArtifactRepository = get_artifact_repository(
            address, tracking_uri=self.uri, registry_uri=self.uri
        )
        return found

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias point to a version, from wherever it pointed before, in one step."""
        _upsert(lambda: self.client.set_registered_model_alias(name, alias, version))

    def set_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version."""
        _upsert(lambda: self.client.set_model_version_tag(name, version, key, value))

    def all_versions(self, condition: str = "") -> Iterator[ModelVersion]:
        """Every version that `condition` (MLflow's filter) chooses, fetched in pages; none of them tells its aliases."""
        token: str | None = None
        while True:
            page = self.client.search_model_versions(condition, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def all_models(self) -> Iterator[RegisteredModel]:
        """Every registered model with its aliases and newest version, fetched in pages."""
        token: str | None = None
        while True:
            page = self.client.search_registered_models(max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _upsert(write: Callable[[], None]) -> None:
    """Call `write`, again where somebody else made the same row at the same moment.

    MLflow looks for a row and then inserts it; the second of two that found none violates the primary key, and finds the row
    when it looks again.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(_UPSERTS):
        try:
            return write()
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST" or attempt == _UPSERTS - 1:
                raise
    return None


def local_uri(root: Path) -> str:
    """The tracking URI of the local form under `root`, as `mlflow ui --backend-store-uri` takes it."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(root.resolve() / "mlflow.db")).render_as_string()


@contextmanager
def open_store(tracking_uri: str | None, root: Path, *, writing: bool) -> Iterator[Store]:
    """Open MLflow at `tracking_uri`, or its local form under `root` where that is None.

    Args:
        root: Made if missing; not used where there is a tracking URI.
        writing: Keep other writers on a local form out until the context ends. A crashed process frees the lock.

    Raises:
        RegistryError: Any failure of MLflow, its artifact store or the disk inside the context, with the registry's
            address.
    """
    if not writing and tracking_uri is None and not (root / "mlflow.db").exists():
        raise RegistryError(
            f"{root}: no registry here; expected the folder that corrections were registered in"
        )
    _configure_mlflow()
    from mlflow.tracking import MlflowClient

    with ExitStack() as held, _failures_of(_without_secrets(tracking_uri) if tracking_uri else str(root)):
        if tracking_uri is None:
            held.enter_context(_locked(root, writing))
            _make_tables(root)
        uri = tracking_uri or local_uri(root)
        artifacts = None if tracking_uri else (root.resolve() / "artifacts").as_uri()
        if not writing:
            held.close()
        yield Store(MlflowClient(tracking_uri=uri, registry_uri=uri), uri, artifacts)


def prepare(tracking_uri: str | None, root: Path) -> None:
    """Open the registry once for writing: imports MLflow and makes the tables of a new local form (seconds).

    A job calls this while it trains, so that its first registration does not wait.

    Raises:
        RegistryError: The registry cannot be opened.
    """
    with open_store(tracking_uri, root, writing=True) as store:
        store.client.search_registered_models(max_results=1)


@contextmanager
def _locked(root: Path, writing: bool) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("a")
    except OSError as error:
        raise RegistryError(f"{root}: cannot write there: {error.strerror}; choose another folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX if writing else fcntl.LOCK_SH)
        yield


@contextmanager
def _failures_of(address: str) -> Iterator[None]:
    """Turn what MLflow and the libraries below it raise into a RegistryError that begins with `address`."""
    try:
        yield
    except Exception as error:
        described = describe_failure(error)
        if described is None:
            raise
        raise RegistryError(f"{address}: {described}") from error


def describe_failure(error: Exception) -> str | None:
    """What failed and what to do about it, where `error` comes from MLflow, a library below it, or the disk; else None."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import HTTPError, RequestException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        return _artifact_failure(error.message) or _first_line(error.message)
    if isinstance(error, HTTPError):
        failed = error.response is not None and error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return (_artifact_failure(str(error)) if failed else None) or f"refused ({_first_line(error)})"
    if isinstance(error, RequestException):
        return f"no answer ({_first_line(error)}); check that it is up"
    if isinstance(error, BotoCoreError | ClientError | Boto3Error):
        return f"the artifact store failed: {_first_line(error)}; check the AWS_ variables and that it is up"
    if isinstance(error, SQLAlchemyError):
        return f"the database failed: {_first_line(error)}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; make room, or allow it to be read and written"
    return None


def _artifact_failure(message: str) -> str | None:
    """What it means that a server could not pass an artifact on: it answers, and what lies behind it does not."""
    found = _ARTIFACT.search(unquote(message))
    if found is None or any(reason in message for reason in _NO_SERVER):
        return None
    return (
        f"{found['path']}: the server could not read or write this artifact; the S3 behind it may be down, slow, "
        "full, or deny access: the end of the server's log says which"
    )


def _first_line(message: object) -> str:
    """What an error says, without the retries and traces that follow; an address in it may carry a password."""
    text = next((line.strip() for line in str(message).splitlines() if line.strip()), "")
    return _without_secrets(text)[:_MESSAGE_LENGTH]


def _make_tables(root: Path) -> None:
    """Make the database of a new local form, whole or not at all: MLflow cannot continue half-made tables."""
    database = root / "mlflow.db"
    if database.exists():
        return
    from mlflow.tracking import MlflowClient
    from sqlalchemy import URL

    for leftover in root.glob(".mlflow.db.*"):
        leftover.unlink()
    made, whole = (root / f".mlflow.db.{state}" for state in ("making", "whole"))
    MlflowClient(URL.create("sqlite", database=str(made.resolve())).render_as_string()).search_experiments(
        max_results=1
    )
    # A copy, as MLflow keeps a connection to the file that it made.
    shutil.copyfile(made, whole)
    whole.replace(database)
    made.unlink()


def _without_secrets(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def _configure_mlflow() -> None:
    """No usage reports, bars or announcements, bounded waits; this must happen before MLflow is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # MLflow's own bounds let a job wait ten minutes for a server that is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
