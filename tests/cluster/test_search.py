"""A search on a cluster of several nodes of this machine outlives the loss of one, and of its own driver."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from corrector.registry.search_record import SearchResult
from jobs.batch import check_batch
from jobs.plan import LaneWishes
from jobs.search import main
from jobs.search_driver import SearchJob
from jobs.trainer import TRAIN_ENVIRONMENT, start_queue
from tests.jobs.test_correct import ROOT
from tests.jobs.test_search import search, told, write_search


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head without CPUs, where the driver is, and one node with a CPU, on the loopback interface."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": TRAIN_ENVIRONMENT})
    cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class Place:
    """An actor that knows where it is."""

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


@pytest.mark.slow
def test_queues_are_on_the_node_of_the_driver_and_lost_with_no_other(nodes: Cluster) -> None:
    nodes.add_node(num_cpus=1)
    queues = [start_queue(Place) for _ in range(6)]

    found = set(ray.get([queue.node.remote() for queue in queues]))

    assert found == {ray.get_runtime_context().get_node_id()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_node_costs_a_search_at_most_the_way_since_the_last_rung(
    nodes: Cluster, tmp_path: Path, small_sd3: Path
) -> None:
    """Nothing replaces the node: what its lane held goes on in the lane of the other."""
    lost = nodes.add_node(num_cpus=1)
    path = write_search(
        tmp_path, small_sd3, steps=300, trials=4, scheduler="none", space={"rank": [1, 2, 3, 4]}
    )
    storage = tmp_path / "runs"
    job = SearchJob(
        check_batch(path, storage=storage, run="run"),
        Console(file=io.StringIO()),
        wishes=LaneWishes(slots=1),
        warm_start=False,
    )
    found: list[SearchResult] = []
    running = threading.Thread(target=lambda: found.append(job.search()[0]))
    running.start()
    until = time.monotonic() + 400
    while time.monotonic() < until and len(list(storage.glob("run/trials/*/*/reports.json"))) < 2:
        time.sleep(0.05)
    before = {file: json.loads(file.read_text()) for file in storage.glob("run/trials/*/*/reports.json")}
    nodes.remove_node(lost, allow_graceful=False)
    running.join(400)
    for thread in threading.enumerate():
        if thread.name.startswith("lane-"):  # the lane that was lost finds room once the other has ended
            thread.join(100)

    assert before
    (result,) = found
    trials = result.prompts[0].trials
    assert len(trials) == 4
    assert {trial.state for trial in trials} == {"finished"}
    for file, reports in before.items():
        assert json.loads(file.read_text())[: len(reports)] == reports


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_search_goes_on_and_repeats_nothing(nodes: Cluster, tmp_path: Path, small_sd3: Path) -> None:
    path = write_search(tmp_path, small_sd3, steps=200)
    storage = tmp_path / "runs"
    command = [sys.executable, "-m", "jobs.search", str(path), "--storage", str(storage), "--run-id", "run"]
    environment = os.environ | {"RAY_ADDRESS": nodes.address, "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        [*command, "--slots", "2"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 400
    while time.monotonic() < until and len(list(storage.glob("run/trials/*/*/reports.json"))) < 2:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {file: json.loads(file.read_text()) for file in storage.glob("run/trials/*/*/reports.json")}
    assert before

    assert main([*command[3:], "--slots", "2"]) == 2  # only --resume goes on

    _, result, _ = search(path, storage, resume=True)
    (prompt,) = result.prompts
    assert len(prompt.trials) == 5
    assert {trial.state for trial in prompt.trials} <= {"finished", "stopped"}
    for file, reports in before.items():
        assert json.loads(file.read_text())[: len(reports)] == reports

    _, again, _ = search(path, storage, resume=True)
    assert told(again.prompts[0]) == told(prompt)
    assert again.prompts[0].best == prompt.best
