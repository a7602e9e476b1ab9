"""Fixtures of tests that register adapters, in a local registry of their own."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from mlflow.store.artifact import s3_artifact_repo
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils

from corrector.registry import RegisteredVersion, local_uri, register
from tests.support.records import Status, small_adapter, write_record
from tests.world.scenes import Scene

PERSON = Scene("person", "lying", "grass")
NAME = "a-person-lying-on-the-grass"

Work = tuple[int, Status]
"""Seed and status of a record."""
_ADDRESSES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "model_versions": "storage_location",
}
"""Where MLflow's tables hold the folder of the artifacts."""


@dataclass(frozen=True)
class Registered:
    """A local registry in which some works were registered, with their record folders; read only."""

    root: Path
    records: tuple[Path, ...] = ()
    versions: tuple[RegisteredVersion, ...] = ()


class Registries:
    """Local registries of which each is made when it is first asked for, and then copied."""

    def __init__(self, empty: Path, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[Work, ...], Registered] = {(): Registered(empty)}

    def of(self, *works: Work) -> Registered:
        """The registry in which these works, and no others, were registered in this order."""
        if works not in self._made:
            before, (seed, status) = self.of(*works[:-1]), works[-1]
            root = self._folder / "-".join(f"{seed}{status}" for seed, status in works)
            copy_registry(before.root, Path(shutil.copytree(self._made[()].root, root)))
            record = write_work(self._folder / f"record-{seed}-{status}", seed, status)
            version = register(record, tracking_uri=None, root=root)
            self._made[works] = Registered(root, (*before.records, record), (*before.versions, version))
        return self._made[works]


class Registering:
    """Registers versions of NAME in `root`, each from work of its own, whose record is left in `folder`/record-SEED."""

    def __init__(self, root: Path, folder: Path, registries: Registries) -> None:
        self._root = root
        self._folder = folder
        self._registries = registries
        self._empty = True

    def __call__(self, seed: int, status: Status = "corrected", **changes: Any) -> RegisteredVersion:
        """Another version; `changes` are those of `write_record`."""
        if self._empty and not changes:
            return self.all((seed, status))[0]
        self._empty = False
        folder = write_work(self._folder / f"record-{seed}", seed, status, **changes)
        return register(folder, tracking_uri=None, root=self._root)

    def all(self, *works: int | Work) -> tuple[RegisteredVersion, ...]:
        """The first versions, copied from a registry that has them; a seed alone stands for work that was corrected."""
        assert self._empty, "only an empty registry is filled by a copy"
        self._empty = False
        chosen: list[Work] = [(work, "corrected") if isinstance(work, int) else work for work in works]
        found = self._registries.of(*chosen)
        copy_registry(found.root, self._root)
        for (seed, _), record in zip(chosen, found.records, strict=True):
            shutil.copytree(record, self._folder / f"record-{seed}")
        return found.versions


def write_work(folder: Path, seed: int, status: Status = "corrected", **changes: Any) -> Path:
    """Write a small record into `folder`, of which `seed` decides the work and the adapter."""
    options: dict[str, Any] = {
        "pairs": 2,
        "guard_images": 1,
        "steps": 10,
        "work_id": f"work-{seed}",
        "adapter": small_adapter(f"{PERSON}{seed}"),
    }
    write_record(folder, PERSON, status, **(options | changes))
    return folder


def copy_registry(source: Path, root: Path) -> None:
    """Give the empty local registry `root` the content of `source`; SQLite copies, since this process may have `root` open."""
    if (source / "artifacts").exists():
        shutil.copytree(source / "artifacts", root / "artifacts")
    with (
        closing(sqlite3.connect(source / "mlflow.db")) as whole,
        closing(sqlite3.connect(root / "mlflow.db")) as copy,
    ):
        whole.backup(copy)
        moved = (source.resolve().as_uri(), root.resolve().as_uri())
        with copy:
            for table, column in _ADDRESSES.items():
                copy.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", moved)
    utils._artifact_repos_cache.clear()  # it goes by the run alone, which the copy has, too


def forget_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow and boto3 read the AWS variables again, as a new process does."""
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture(scope="session")
def registries(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Registries:
    """Local registries with content, to be copied."""
    return Registries(empty_registry, tmp_path_factory.mktemp("registries"))


@pytest.fixture
def client(root: Path) -> MlflowClient:
    """MLflow's own client of `root`, as somebody else uses it."""
    return MlflowClient(local_uri(root), local_uri(root))


@pytest.fixture
def shared(root: Path, tmp_path: Path, client: MlflowClient) -> str:
    """The address of a database that is used like a server's: without the lock of the local form."""
    client.create_experiment("corrections", artifact_location=(tmp_path / "artifacts").as_uri())
    return local_uri(root)


@pytest.fixture
def registered(root: Path, tmp_path: Path, registries: Registries) -> Registering:
    """`registered(seed, status)`: another version of NAME in `root`."""
    return Registering(root, tmp_path, registries)
