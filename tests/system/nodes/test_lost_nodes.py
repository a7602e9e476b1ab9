"""Jobs on nodes that share nothing but S3, a database and MLflow outlive the loss of one.

One cluster serves all tests: a node that stays, and one that each test adds and loses.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.mlflow_server import MlflowServer
from cluster.object_store import ObjectStore
from corrector.record.correction_record import CorrectionRecord
from corrector.record.search_results import SearchResult
from corrector.storage import Storage
from jobs.inputs.run_folder import PromptFolder, RunFolder, read_json
from tests.support.batches import write_batch, write_search
from tests.support.databases import new_database
from tests.support.lanes import undisturbed
from tests.support.nodes import Nodes, cluster_of_nodes
from tests.support.paths import PROJECT
from tests.support.servers import use_mlflow, use_object_store
from tests.support.waiting import LONG, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONG)]

# A driver that starts six queues, and prints on which nodes they and it are.
WHERE = """
import json, ray
from jobs.lanes.ray_train import start_queue
class Place:
    def node(self):
        return ray.get_runtime_context().get_node_id()
ray.init(log_to_driver=False)
queues = [start_queue(Place) for _ in range(6)]
print(json.dumps([ray.get_runtime_context().get_node_id(), *ray.get([queue.node.remote() for queue in queues])]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all drivers, which the nodes do not see, nor each other's."""
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def nodes(
    driver: Path, object_store: ObjectStore, postgres_server: str, mlflow_server: MlflowServer
) -> Iterator[Nodes]:
    """A head without CPUs, where drivers are, and the node that stays."""
    with pytest.MonkeyPatch.context() as patch:
        use_object_store(object_store, patch, driver)
        use_mlflow(mlflow_server, patch)
        patch.setenv("CORRECTOR_DATABASE", new_database(postgres_server))
        patch.setenv("CORRECTOR_CACHE", str(driver / "cache"))
        with cluster_of_nodes(private=driver) as nodes:
            nodes.add(num_cpus=1)
            yield nodes


@pytest.fixture
def stored(s3: Any, bucket: str) -> Callable[[str], list[str]]:
    """The keys of the objects in the bucket whose name ends so."""

    def keys(end: str) -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        found = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return [key for key in found if key.endswith(end)]

    return keys


Stored = Callable[[str], list[str]]


def test_queues_are_on_the_node_of_the_driver_and_lost_with_no_other(nodes: Nodes) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WHERE], env=nodes.environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    driver, *queues = json.loads(ran.stdout.splitlines()[-1])
    assert len(queues) == 6
    assert set(queues) == {driver}


def test_a_lost_node_costs_a_search_at_most_the_way_since_the_last_rung(
    nodes: Nodes, stored: Stored, bucket: str, driver: Path, small_sd3: Path
) -> None:
    """Nothing replaces the node: what its lane held goes on in the lane of the other."""
    space = {"rank": [1, 2, 3, 4]}
    path = write_search(driver / "search", small_sd3, steps=100, trials=4, scheduler="none", space=space)
    added = nodes.add(num_cpus=1)
    run = RunFolder(f"s3://{bucket}/runs", "run")
    result = run.place.file("search.json")
    options = ["--run-id=run", "--slots=1", "--no-warm-start"]
    with submitted(nodes, "jobs.search", path, bucket, *options) as (job, log):
        # Two lanes of one slot: with two trials scored, each lane holds one.
        wait_until(lambda: job.poll() is not None or len(stored("/reports.json")) >= 2, LONG)
        before = {key: read_json(Storage.of(f"s3://{bucket}").file(key)) for key in stored("/reports.json")}
        nodes.lose(added)
        # The correction with what was found is no part of this.
        wait_until(lambda: job.poll() is not None or result.exists(), LONG)
    assert before, log.read_text()
    assert result.exists(), log.read_text()
    trials = SearchResult.model_validate(read_json(result)).prompts[0].trials
    assert [trial.state for trial in trials] == ["finished"] * 4
    for key, reports in before.items():
        assert read_json(Storage.of(f"s3://{bucket}").file(key))[: len(reports)] == reports


def test_a_batch_outlives_a_node(
    nodes: Nodes, stored: Stored, bucket: str, driver: Path, small_sd3: Path
) -> None:
    names = ("cat", "horse", "sheep", "cow")
    path = write_batch(driver / "batch", small_sd3, steps=60, names=names)
    added = nodes.add(num_cpus=1)
    saved: set[str] = set()

    def all_saved() -> bool:
        saved.update(stored("/checkpoint.tar"))
        return len(saved) == len(names)

    options = ["--slots=2", "--checkpoint-seconds=0.1"]
    with submitted(nodes, "jobs.correct", path, bucket, *options) as (job, log):
        # Two lanes of two slots: where all four were saved, both nodes had prompts. One lane may be done by now.
        wait_until(lambda: job.poll() is not None or all_saved(), LONG)
        nodes.lose(added)
        results = ended(job, log, bucket)
    assert [result["adapter"]["version"] for result in results] == ["1"] * len(names)
    assert stored("/checkpoint.tar") == []
    assert losses(results) == undisturbed_losses(path)


def test_a_node_that_is_told_to_leave_saves_before_it_goes(
    nodes: Nodes, stored: Stored, bucket: str, driver: Path, small_sd3: Path
) -> None:
    """Lanes save nothing but on this occasion."""
    names = ("person", "dog", "bird", "robot")
    path = write_batch(driver / "drain", small_sd3, steps=200, names=names)
    added = nodes.add(num_cpus=1)
    drain = nodes.drainer(added)
    options = ["--slots=2", "--checkpoint-seconds=1000"]
    with submitted(nodes, "jobs.correct", path, bucket, *options) as (job, log):
        wait_until(lambda: job.poll() is not None or log.read_text().count("  training") >= len(names), LONG)
        drain()
        wait_until(lambda: job.poll() is not None or len(stored("/checkpoint.tar")) == 2, LONG)
        assert job.poll() is None, "the job ended before the node was told to leave"
        nodes.lose(added)
        results = ended(job, log, bucket)
    assert losses(results) == undisturbed_losses(path)


@contextmanager
def submitted(
    nodes: Nodes, module: str, path: Path, bucket: str, *options: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A job on a batch file, and its log; it ends with the block."""
    log = path.with_name("job.log")
    command = [sys.executable, "-m", module, str(path), f"--storage=s3://{bucket}/runs", *options]
    with log.open("w") as output:
        job = subprocess.Popen(
            command, cwd=PROJECT, env=nodes.environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield job, log
        finally:
            job.kill()
            job.wait()


def ended(job: subprocess.Popen[bytes], log: Path, bucket: str) -> list[dict[str, Any]]:
    """The results of the batch's prompts, when the job has ended."""
    # Noise teaches nothing, so the gate rejects all: exit status 1.
    assert job.wait(LONG) == 1, log.read_text()
    found: list[dict[str, Any]] = read_json(RunFolder(f"s3://{bucket}/runs", "batch").result)["prompts"]
    return found


def losses(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Name -> the losses in the prompt's record."""
    found = {}
    for result in results:
        record = PromptFolder(result["folder"].removesuffix("/record.tar")).record
        assert record.fetch()
        found[result["name"]] = [point.loss for point in CorrectionRecord.load(record.path).curve]
    return found


def undisturbed_losses(path: Path) -> dict[str, Any]:
    curves = undisturbed(path, path.with_name("reference"))
    return {name: pytest.approx(curve, abs=1e-4) for name, curve in curves.items()}
