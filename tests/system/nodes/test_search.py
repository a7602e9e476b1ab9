"""A job on a cluster of several nodes of this machine outlives the loss of one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corrector.record.search_results import SearchResult
from corrector.storage import Storage
from jobs.inputs.run_folder import RunFolder, read_json
from tests.support.batches import write_search
from tests.support.nodes import Nodes, cluster_of_nodes
from tests.support.paths import PROJECT
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
def nodes() -> Iterator[Nodes]:
    """A head without CPUs and one node with a CPU."""
    with cluster_of_nodes() as nodes:
        nodes.add(num_cpus=1)
        yield nodes


def test_queues_are_on_the_node_of_the_driver_and_lost_with_no_other(nodes: Nodes) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WHERE], env=nodes.environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    driver, *queues = json.loads(ran.stdout.splitlines()[-1])
    assert len(queues) == 6
    assert set(queues) == {driver}


def test_a_lost_node_costs_a_search_at_most_the_way_since_the_last_rung(
    separate_nodes: Nodes, stored: Callable[[str], list[str]], bucket: str, tmp_path: Path, small_sd3: Path
) -> None:
    """Nothing replaces the node: what its lane held goes on in the lane of the other."""
    path = write_search(
        tmp_path / "driver", small_sd3, steps=100, trials=4, scheduler="none", space={"rank": [1, 2, 3, 4]}
    )
    run = RunFolder(f"s3://{bucket}/runs", "run")
    log = tmp_path / "driver" / "search.log"
    command = [
        sys.executable,
        "-m",
        "jobs.search",
        str(path),
        f"--storage={run.storage.root}",
        "--run-id=run",
    ]
    with log.open("w") as output:
        job = subprocess.Popen(
            [*command, "--slots=1", "--no-warm-start"],
            cwd=PROJECT,
            env=separate_nodes.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        # Two lanes of one slot: with two trials scored, each lane holds one.
        wait_until(lambda: job.poll() is not None or len(stored("/reports.json")) >= 2, LONG)
        before = {key: read_json(Storage.of(f"s3://{bucket}").file(key)) for key in stored("/reports.json")}
        separate_nodes.lose(2)
        status = job.wait(LONG)
    finally:
        job.kill()
    # Noise teaches nothing, so the gate rejects what the search found best: exit status 1.
    assert status == 1, log.read_text()
    assert before
    result = SearchResult.model_validate(read_json(run.place.file("search.json")))
    trials = result.prompts[0].trials
    assert [trial.state for trial in trials] == ["finished"] * 4
    for key, reports in before.items():
        assert read_json(Storage.of(f"s3://{bucket}").file(key))[: len(reports)] == reports
