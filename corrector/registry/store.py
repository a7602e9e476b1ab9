"""Opening MLflow: a tracking server where one is given, else a SQLite file and a folder under a root.

ROOT/mlflow.db      runs, registered models, versions, aliases, tags
ROOT/artifacts/     what runs keep: adapters, images, scorecards
ROOT/.lock          held while a process writes, so that two of them never create the same version twice
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from corrector.errors import UserError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class RegistryError(UserError):
    """The registry cannot be reached or read, or what it holds is not what was registered."""


@dataclass(frozen=True)
class Store:
    """An open registry; `artifacts` is where a new experiment keeps its files, None: the server's choice."""

    client: MlflowClient
    uri: str
    artifacts: str | None


def local_uri(root: Path) -> str:
    """The tracking URI of the local form under `root`, as `mlflow ui --backend-store-uri` takes it."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(root.resolve() / "mlflow.db")).render_as_string()


@contextmanager
def open_store(tracking_uri: str | None, root: Path, *, writing: bool) -> Iterator[Store]:
    """Open MLflow at `tracking_uri`, or its local form under `root` where that is None.

    Args:
        root: Made if missing; also holds the lock of a registry that is a server.
        writing: Keep other writers on this root out until the context ends. A crashed process frees the lock.

    Raises:
        RegistryError: Any failure of MLflow inside the context, with the registry's address.
    """
    if not writing and tracking_uri is None and not (root / "mlflow.db").exists():
        raise RegistryError(
            f"{root}: no registry here; expected the folder that corrections were registered in"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("a")
    except OSError as error:
        raise RegistryError(f"{root}: cannot write there: {error.strerror}; choose another folder") from error
    _keep_mlflow_quiet()
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX if writing else fcntl.LOCK_SH)
        try:
            if tracking_uri is None:
                _make_tables(root)
            uri = tracking_uri or local_uri(root)
            artifacts = None if tracking_uri else (root.resolve() / "artifacts").as_uri()
            store = Store(MlflowClient(tracking_uri=uri, registry_uri=uri), uri, artifacts)
            if not writing:
                lock.close()
            yield store
        except MlflowException as error:
            address = _without_secrets(tracking_uri) if tracking_uri else root
            raise RegistryError(f"{address}: {error.message}") from error


def prepare(tracking_uri: str | None, root: Path) -> None:
    """Open the registry once for writing: imports MLflow and makes the tables of a new local form (seconds).

    A job calls this while it trains, so that its first registration does not wait.

    Raises:
        RegistryError: The registry cannot be opened.
    """
    with open_store(tracking_uri, root, writing=True) as store:
        store.client.search_registered_models(max_results=1)


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


def _keep_mlflow_quiet() -> None:
    """No usage reports, bars or announcements; this must happen before MLflow is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
