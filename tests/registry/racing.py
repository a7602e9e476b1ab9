"""Processes that register records at an MLflow of one's own, as jobs on many machines do; some are killed.

`python -m tests.registry.racing TRACKING_URI FOLDER [KILLS]` is the walk-through: records are made in FOLDER, registering
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

from corrector.base.embedded.world import Scene
from corrector.registry import CorrectionRecord, register
from corrector.registry.collect import collect
from corrector.registry.verify import verify
from tests.registry.records import small_adapter, write_record

NOWHERE = Path("/nonexistent")

# Each process begins with everything imported and nothing opened.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["corrector.registry.verify", "mlflow.store.tracking.sqlalchemy_store", "tests.registry.records"]
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


def start(uri: str, folders: Sequence[Path], said: Any = None, signal: Any = None) -> BaseProcess:
    """A process that registers the records, when `signal` is given, and puts what it was told into the queue `said`."""
    process = _PROCESSES.Process(target=_register_all, args=(uri, list(folders), said, signal), daemon=True)
    process.start()
    return process


def race(uri: str, folders: Sequence[Path], *, processes: int, seed: int = 0) -> list[list[str]]:
    """What each of so many processes was told that registered the records at once, in orders of their own."""
    draws = random.Random(seed)
    said, signal = _PROCESSES.Queue(), _PROCESSES.Event()
    children = [start(uri, draws.sample(list(folders), len(folders)), said, signal) for _ in range(processes)]
    time.sleep(1)
    signal.set()
    answers = [said.get(timeout=200) for _ in children]
    for child in children:
        child.join()
    return answers


def kill_at_random(uri: str, folders: Sequence[Path], *, seed: int = 0) -> int:
    """Kill the registering of each record at a random moment, then register all; returns how many kills came before the end.

    The first two are not killed: one starts the process that forks the others, the next tells how long one takes.
    """
    draws = random.Random(seed)
    start(uri, folders[:1]).join()
    began = time.monotonic()
    start(uri, folders[1:2]).join()
    seconds = time.monotonic() - began
    killed = 0
    for folder in folders[2:]:
        child = start(uri, [folder])
        child.join(draws.uniform(0, seconds))
        killed += child.exitcode is None
        child.kill()
        child.join()
    child = start(uri, folders)
    child.join()
    assert child.exitcode == 0
    return killed


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


def _register_all(uri: str, folders: list[Path], said: Any, signal: Any) -> None:
    if signal is not None:
        signal.wait()
    answers = []
    try:
        for folder in folders:
            version = register(folder, tracking_uri=uri, root=NOWHERE)
            answers.append(f"{version.name}/{version.version} {version.run_id}")
    except Exception as error:
        answers.append(repr(error))
        raise
    finally:
        if said is not None:
            said.put(sorted(answers))


if __name__ == "__main__":
    made = write_records(Path(sys.argv[2]), 2 + (int(sys.argv[3]) if len(sys.argv) > 3 else 50))
    before = kill_at_random(sys.argv[1], made)
    check_one_version_each(sys.argv[1], made)
    garbage = collect(tracking_uri=sys.argv[1], root=NOWHERE, older_than=timedelta(0), delete=True)
    print(f"{before} killed in the middle; one version each; {len(garbage)} leftovers were found and removed")
    assert collect(tracking_uri=sys.argv[1], root=NOWHERE, older_than=timedelta(0)) == []
    check_one_version_each(sys.argv[1], made)
