"""The local registry: a database and a folder, for use without a server.

ROOT/mlflow.db      runs, registered models, versions, aliases, tags
ROOT/artifacts/     RUN_ID/artifacts/ for each run: adapter, images, scorecard
ROOT/.lock          lock of readers and writers: SQLite takes one writer at a time, and the others wait for the lock

MLflow's tables hold absolute addresses of artifacts. Since a local registry may be moved and copied, this
package does not follow them: the artifacts of a local registry are those below its present root.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from corrector.registry.failures import RegistryError

DATABASE = "mlflow.db"
_LOCK = ".lock"


def local_uri(root: Path) -> str:
    """The tracking URI of the local registry in `root`, as `mlflow ui --backend-store-uri` takes it."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(root.resolve() / DATABASE)).render_as_string()


def artifacts_uri(root: Path) -> str:
    """The address of the folder of all artifacts, as MLflow's tables hold it."""
    return (root.resolve() / "artifacts").as_uri()


def artifacts_folder(root: Path, run_id: str) -> Path:
    """The folder of a run's artifacts."""
    return root / "artifacts" / run_id / "artifacts"


def folder_of(address: str) -> Path:
    """The folder at an address (file:)."""
    return Path(unquote(urlsplit(address).path))


def refuse_outside(uri: str, address: str) -> None:
    """Raise RegistryError if artifacts that are to be deleted are outside the folder of the database file `uri`."""
    registry = _left(uri, address)
    if registry is not None:
        raise RegistryError(f"{folder_of(address)}: is outside of the registry in {registry}; not deleted")


def refuse_moved(uri: str, address: str) -> None:
    """Raise RegistryError if `uri` is the database of a local registry whose tables name artifacts outside its folder: it was
    moved or copied, and who opens it by this address would read and write the original's artifacts.
    """
    registry = _left(uri, address)
    if registry is not None and (registry / _LOCK).exists():
        raise RegistryError(
            f"{folder_of(address)}: is outside of the registry in {registry}, which was moved or copied; open it with "
            f"--root {registry}, or without MLFLOW_TRACKING_URI"
        )


def _left(uri: str, address: str) -> Path | None:
    """The folder of the database file `uri`, if the artifacts at `address` are in a folder outside of it."""
    if not (uri.startswith("sqlite:") and address.startswith("file:")):
        return None
    from sqlalchemy import make_url

    registry = Path(make_url(uri).database or "").resolve().parent
    return None if folder_of(address).resolve().is_relative_to(registry) else registry


@contextmanager
def locked(root: Path, writing: bool) -> Iterator[None]:
    """Make `root` if missing, and hold its lock: exclusive for writing, shared for reading."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / _LOCK).open("a")
    except OSError as error:
        raise RegistryError(f"{root}: cannot write there: {error.strerror}; choose another folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX if writing else fcntl.LOCK_SH)
        yield


def make_tables(root: Path) -> None:
    """Make the database of a new local registry, whole or not at all: MLflow cannot continue half-made tables."""
    database = root / DATABASE
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
    # Copied, because MLflow keeps a connection to the file that it made.
    shutil.copyfile(made, whole)
    whole.replace(database)
    made.unlink()


def update_addresses(root: Path) -> None:
    """Write the present folder of a registry that was moved or copied into MLflow's tables.

    This package does not need it; MLflow's pages and `models:/` addresses do.

    Raises:
        RegistryError: The database was copied without the artifacts.
    """
    present = artifacts_uri(root)
    with closing(sqlite3.connect(root / DATABASE, timeout=60)) as database, database:
        moved = database.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE name IN ('corrections', 'searches') "
            "AND artifact_location LIKE 'file:%/artifacts' AND artifact_location != ?",
            [present],
        ).fetchall()
        for (former,) in moved:
            ended = database.execute(
                "SELECT run_uuid FROM runs WHERE instr(artifact_uri, ? || '/') = 1 "
                "AND lifecycle_stage = 'active' AND status IN ('FINISHED', 'FAILED') AND experiment_id IN "
                "(SELECT experiment_id FROM experiments WHERE name = 'corrections')",
                [former],
            ).fetchall()
            if ended and not any((root / "artifacts" / run_id).is_dir() for (run_id,) in ended):
                raise RegistryError(
                    f"{root}: was copied from a registry whose artifacts are in {former}, without them; "
                    f"copy that folder to {root / 'artifacts'}"
                )
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("model_versions", "storage_location"),
            ):
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 (our own words)
                    f"WHERE {column} = ? OR instr({column}, ? || '/') = 1",
                    [present, len(former) + 1, former, former],
                )
