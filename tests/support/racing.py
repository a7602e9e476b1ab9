"""Processes that register records at an MLflow of one's own, as jobs on many machines do; some are killed.

`python -m tests.support.racing TRACKING_URI FOLDER [KILLS]` is an endurance run: records are made in FOLDER, registering
is killed at KILLS random moments (50), and then it finishes.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from corrector.record.correction_record import CorrectionRecord
from corrector.registry import prepare, register
from corrector.registry.garbage import collect_garbage
from corrector.registry.review_log import champions, history
from corrector.registry.verify import verify
from tests.support.records import small_adapter, write_record
from tests.support.waiting import wait_until
from tests.world.scenes import Scene

NOWHERE = Path("/nonexistent")
LIMIT_S = 120
"""How long a process may take to reach a step, or to register everything."""

# Each process begins with everything imported and nothing opened.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["corrector.registry.verify", "mlflow.store.tracking.sqlalchemy_store", "tests.support.records"]
)


def write_records(folder: Path, count: int) -> list[Path]:
    """So many small records below `folder`, each of a prompt of its own."""
    folders = [folder / f"prompt-{number}" for number in range(count)]
    for path in folders:
        write_record(
            path, Scene("person", "lying", "grass"), pairs=2, guard_images=1, steps=10, name=path.name,
            work_id=path.name, adapter=small_adapter(path.name),
        )  # fmt: skip
    return folders


def race(
    uri: str | None, folders: Sequence[Path], *, processes: int, root: Path = NOWHERE, seed: int = 0
) -> list[list[str]]:
    """What each of so many processes was told that registered the records at once, in orders of their own."""
    draws = random.Random(seed)
    said, at_once = _PROCESSES.Queue(), _PROCESSES.Barrier(processes)
    children = [
        _start(_register_at_once, uri, root, draws.sample(list(folders), len(folders)), at_once, said)
        for _ in range(processes)
    ]
    answers = [said.get(timeout=LIMIT_S) for _ in children]
    for child in children:
        child.join()
    return answers


def kill_at_steps(uri: str, folders: Sequence[Path], steps: Sequence[str]) -> None:
    """Kill the registering of each record when it is about to call a method of MlflowClient, its own of `steps`."""
    for folder, step in zip(folders, steps, strict=True):
        here, there = _PROCESSES.Pipe()
        child = _start(_register_up_to, uri, folder, step, there)
        there.close()  # so that the end of the child is the end of the pipe
        assert here.poll(LIMIT_S) and here.recv() == step
        child.kill()
        child.join()


def register_all(uri: str, folders: Sequence[Path]) -> None:
    """Register the records in a process of its own."""
    child = _start(_register, uri, NOWHERE, folders)
    child.join()
    assert child.exitcode == 0


def kill_while_tables_are_made(root: Path) -> None:
    """Kill a process that makes the database of a new local registry, before it exists."""
    child = _start(prepare, None, root)
    wait_until((root / ".mlflow.db.making").exists)
    child.kill()
    child.join()
    assert not (root / "mlflow.db").exists()


def check_one_version_each(uri: str, folders: Sequence[Path]) -> None:
    """One finished version for each record and no other, with its bytes, and a candidate."""
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
        candidate = client.get_model_version_by_alias(version.name, "candidate")
        assert str(candidate.version) == str(version.version)


def check_settled(uri: str, name: str) -> None:
    """After decisions at the same moment: the aliases are where the log left them, and no move is missing in it."""
    log = history(name, tracking_uri=uri, root=NOWHERE)
    assert all(entry.recorded for entry in log)
    stack = champions(log)
    aliases = MlflowClient(uri, uri).get_registered_model(name).aliases
    pointed = {alias: str(aliases[alias]) for alias in ("champion", "previous") if alias in aliases}
    expected = dict(zip(("champion", "previous"), reversed(stack), strict=False))
    if log[-1].version is None:
        expected = {"previous": stack[-1]} if stack else {}
    assert pointed == expected


def _start(work: Any, *arguments: Any) -> BaseProcess:
    process = _PROCESSES.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def _register(uri: str | None, root: Path, folders: Sequence[Path]) -> list[str]:
    versions = [register(folder, tracking_uri=uri, root=root) for folder in folders]
    return sorted(f"{version.name}/{version.version} {version.run_id}" for version in versions)


def _register_at_once(uri: str | None, root: Path, folders: Sequence[Path], at_once: Any, said: Any) -> None:
    at_once.wait(LIMIT_S)
    try:
        said.put(_register(uri, root, folders))
    except Exception as error:
        said.put([repr(error)])
        raise


def _register_up_to(uri: str, folder: Path, step: str, connection: Any) -> None:
    """Register; say before the call of `step` that it comes now, and wait there to be killed."""

    def stopped(*_: Any, **__: Any) -> None:
        connection.send(step)
        connection.recv()

    setattr(MlflowClient, step, stopped)
    register(folder, tracking_uri=uri, root=NOWHERE)


def _kill_at_random(uri: str, folders: Sequence[Path], *, seed: int = 0) -> int:
    """Kill the registering of each record at a random moment, then register all; returns how many kills came before the end.

    The first two are not killed: one starts the process that forks the others, the next tells how long one takes.
    """
    draws = random.Random(seed)
    register_all(uri, folders[:1])
    began = time.monotonic()
    register_all(uri, folders[1:2])
    seconds = time.monotonic() - began
    killed = 0
    for folder in folders[2:]:
        child = _start(_register, uri, NOWHERE, [folder])
        child.join(draws.uniform(0, seconds))
        killed += child.exitcode is None
        child.kill()
        child.join()
    register_all(uri, folders)
    return killed


if __name__ == "__main__":
    made = write_records(Path(sys.argv[2]), 2 + (int(sys.argv[3]) if len(sys.argv) > 3 else 50))
    before = _kill_at_random(sys.argv[1], made)
    check_one_version_each(sys.argv[1], made)
    garbage = collect_garbage(tracking_uri=sys.argv[1], root=NOWHERE, older_than=timedelta(0), delete=True)
    print(f"{before} killed in the middle; one version each; {len(garbage)} leftovers were found and removed")
    assert collect_garbage(tracking_uri=sys.argv[1], root=NOWHERE, older_than=timedelta(0)) == []
    check_one_version_each(sys.argv[1], made)
