"""A local registry that tests need not wait for: its tables are made once."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.base.embedded.world import Scene
from corrector.registry import RegisteredVersion, local_uri, prepare, register
from tests.registry.records import Status, small_adapter, write_record

PERSON = Scene("person", "lying", "grass")
NAME = "a-person-lying-on-the-grass"

Registering = Callable[..., RegisteredVersion]


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared registry without content; read only."""
    root = tmp_path_factory.mktemp("empty") / "registry"
    prepare(None, root)
    return root


@pytest.fixture
def root(empty_registry: Path, tmp_path: Path) -> Path:
    """A registry of the test's own, under a path that needs quoting."""
    return Path(shutil.copytree(empty_registry, tmp_path / "registry #1 ü%20"))


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
def registered(root: Path, tmp_path: Path) -> Registering:
    """`registered(seed, status)`: another version of NAME in `root`, from work of its own."""

    def make(seed: int, status: Status = "corrected", **changes: Any) -> RegisteredVersion:
        folder = tmp_path / f"record-{seed}"
        adapter = small_adapter(f"{PERSON}{seed}")
        options: dict[str, Any] = {
            "pairs": 2,
            "guard_images": 1,
            "steps": 10,
            "work_id": f"work-{seed}",
            "adapter": adapter,
        }
        write_record(folder, PERSON, status, **(options | changes))
        return register(folder, tracking_uri=None, root=root)

    return make
