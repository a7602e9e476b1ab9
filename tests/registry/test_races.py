"""With the database as the only lock: any number of processes, killed at any moment, end in one version per work."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from corrector.base.embedded.world import Scene
from corrector.registry import CorrectionRecord, local_uri, register
from corrector.registry.collect import collect
from corrector.registry.verify import verify
from corrector.registry.versions import RegisteredVersion
from tests.registry.conftest import PERSON
from tests.registry.records import write_record

NOWHERE = Path("/nonexistent")
PLACES = ("grass", "street", "beach")


@pytest.fixture
def shared(root: Path, tmp_path: Path) -> str:
    """The address of a database that is used like a server's: without the lock of the local form."""
    uri = local_uri(root)
    MlflowClient(uri, uri).create_experiment(
        "corrections", artifact_location=(tmp_path / "artifacts").as_uri()
    )
    return uri


def start(uri: str, folders: Sequence[Path]) -> subprocess.Popen[str]:
    """A process that waits for a line, and then registers; it has imported all it needs."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.registry.racing", uri, *map(str, folders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three records."""
    made = []
    for place in PLACES:
        made.append(tmp_path / place)
        write_record(made[-1], Scene("person", "lying", place), pairs=2, guard_images=1, steps=10)
    return made


def check_one_version_each(uri: str, folders: Sequence[Path]) -> None:
    client = MlflowClient(uri, uri)
    versions = client.search_model_versions()
    works = {version.tags["work_id"]: version.tags["adapter_sha256"] for version in versions}
    records = [CorrectionRecord.load(folder) for folder in folders]
    assert works == {record.work_id: record.adapter_sha256 for record in records}
    assert len(versions) == len(records)
    assert all("registration" in version.tags for version in versions)
    found = verify(tracking_uri=uri, root=NOWHERE)
    assert [checked.problem for checked in found] == [None] * len(records)
    for version in versions:
        assert client.get_model_version_by_alias(version.name, "candidate").version == version.version


@pytest.mark.parametrize("at", ["log_artifacts", "create_model_version", "set_registered_model_alias"])
def test_whoever_comes_in_between_is_given_the_same_version(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Another registration of the same work runs as a whole, just before a step of the first."""
    write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1, steps=10)
    method: Callable[..., object] = getattr(MlflowClient, at)
    others: list[RegisteredVersion] = []

    def interrupted(self: MlflowClient, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(MlflowClient, at, method)
        if not others:
            others.append(register(tmp_path / "r", tracking_uri=shared, root=NOWHERE))
        return method(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, at, interrupted)
    version = register(tmp_path / "r", tracking_uri=shared, root=NOWHERE)
    assert [version] == others
    check_one_version_each(shared, [tmp_path / "r"])
    assert collect(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []


def test_a_second_run_that_lost_is_removed_by_its_maker(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that looked for a run at the same moment saw none, and made one each."""
    write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1, steps=10)
    create = MlflowClient.create_run
    others: list[RegisteredVersion] = []

    def interrupted(self: MlflowClient, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(MlflowClient, "create_run", create)
        others.append(register(tmp_path / "r", tracking_uri=shared, root=NOWHERE))
        return create(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "create_run", interrupted)
    assert [register(tmp_path / "r", tracking_uri=shared, root=NOWHERE)] == others
    client = MlflowClient(shared, shared)
    runs = client.search_runs([client.get_experiment_by_name("corrections").experiment_id])
    assert [run.info.run_id for run in runs] == [others[0].run_id]
    assert collect(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []
    check_one_version_each(shared, [tmp_path / "r"])


@pytest.mark.slow
def test_eight_processes_at_once_register_each_work_once(shared: str, folders: list[Path]) -> None:
    draws = random.Random(0)
    children = [start(shared, draws.sample(folders, len(folders))) for _ in range(8)]
    for child in children:
        go(child)
    said = [sorted(child.communicate(timeout=240)[0].splitlines()) for child in children]
    assert [child.returncode for child in children] == [0] * 8
    assert said == [said[0]] * 8
    check_one_version_each(shared, folders)


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_registers_each_work_once(
    shared: str, folders: list[Path]
) -> None:
    """`python -m tests.registry.test_races TRACKING_URI FOLDER 50` does it fifty times."""
    kill_at_random(shared, folders, kills=6)
    check_one_version_each(shared, folders)
    collect(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0), delete=True)
    assert collect(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []
    check_one_version_each(shared, folders)


def kill_at_random(
    uri: str, folders: Sequence[Path], *, kills: int, longest: float = 1.5, seed: int = 0
) -> None:
    """Start registering, kill it after a random time, `kills` times over; then let it finish."""
    draws = random.Random(seed)
    for _ in range(kills):
        child = start(uri, folders)
        go(child)
        time.sleep(draws.uniform(0, longest))
        child.kill()
        child.communicate()
    child = start(uri, folders)
    go(child)
    child.communicate(timeout=240)
    assert child.returncode == 0


if __name__ == "__main__":
    # python -m tests.registry.test_races TRACKING_URI FOLDER [KILLS]
    target = Path(sys.argv[2])
    made = []
    for scene in [Scene("person", "lying", place) for place in PLACES]:
        made.append(target / scene.place)
        write_record(made[-1], scene, pairs=2, guard_images=1, steps=10)
    kill_at_random(sys.argv[1], made, kills=int(sys.argv[3]) if len(sys.argv) > 3 else 50)
    check_one_version_each(sys.argv[1], made)
    print("one version each; left over:")
    for garbage in collect(tracking_uri=sys.argv[1], root=target, older_than=timedelta(0)):
        print(garbage)
