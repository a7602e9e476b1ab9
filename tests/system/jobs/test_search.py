"""The search as a user submits it: killed, resumed, and on to registered adapters, on a real Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import ray
from mlflow.tracking import MlflowClient

from cluster.head import Head
from corrector.base import resolve_base
from corrector.prompts import load_batch
from corrector.registry.local import local_uri
from corrector.registry.searches import EXPERIMENT, log_search
from corrector.settings import Settings
from jobs.inputs.batch import check_batch
from jobs.lanes.ray_train import QueueClient, start_queue
from jobs.search import main
from jobs.tuning.configurations import Figures, Planned
from jobs.tuning.plan import SearchGroup
from jobs.tuning.queue import TrialQueue
from jobs.tuning.searcher import GroupSearcher, make_tuner
from jobs.tuning.trainable import FAILURE
from tests.support import small_trials
from tests.support.batches import scores, search, write_search
from tests.support.paths import PROJECT
from tests.support.search_results import search_result
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("ray_connection")]

KNOWN = {"rank": 4, "learning_rate": 1e-2}


def test_a_killed_search_goes_on_where_it_was_and_its_best_is_registered(
    ray_head: Head, tmp_path: Path, small_sd3: Path, empty_registry: Path
) -> None:
    """Of a batch as a whole, begun with what an earlier search chose."""
    path = write_search(tmp_path, small_sd3, names=("person", "dog"), scope="batch", trials=2)
    storage = tmp_path / "runs"
    shutil.copytree(empty_registry, storage / "registry")
    log_earlier_search(path, storage)
    printed = run_and_kill(path, storage, ray_head)
    assert "begun with what an earlier search chose: rank 4  learning_rate 0.01" in printed
    before = {file: json.loads(file.read_text()) for file in storage.glob("run/trials/*/*/reports.json")}
    assert before
    assert main([str(path), "--storage", str(storage), "--run-id", "run"]) == 2  # only --resume goes on

    status, result, printed = search(path, storage, resume=True)

    for file, reports in before.items():
        assert json.loads(file.read_text())[: len(reports)] == reports
    # Noise teaches nothing, so the gate lets nothing through; the adapters are registered for people to see.
    assert status == 1
    person, dog = result.prompts
    assert [len(person.trials), len(dog.trials)] == [2, 2]
    assert [trial.configuration for trial in person.trials] == [trial.configuration for trial in dog.trials]
    assert person.trials[1].configuration == KNOWN
    assert [trial.state for trial in person.trials] == [trial.state for trial in dog.trials]
    assert person.trials[0].state == "finished"
    assert {trial.state for trial in person.trials} <= {"finished", "stopped"}
    assert person.best is not None
    assert (person.best, person.reason) == (dog.best, dog.reason)
    assert person.reason in printed

    corrections = json.loads((storage / "run" / "result.json").read_text())["prompts"]
    assert [prompt["adapter"]["version"] for prompt in corrections] == ["1", "1"]
    record = json.loads((Path(corrections[0]["folder"]) / "record.json").read_text())
    assert len(record["curve"]) == 8
    assert (storage / "run" / "search.html").is_file()
    settings = replace(Settings.from_environment(), exemplar_roots=(tmp_path,))
    best = load_batch(storage / "run" / "best.yaml", settings=settings)
    for entry, prompt in zip(best.prompts, result.prompts, strict=True):
        assert prompt.chosen is not None
        assert prompt.chosen.confirmed is not None
        assert entry.hyperparameters.rank == prompt.chosen.configuration["rank"]

    logged = logged_runs(storage / "registry")
    assert {logged[name] for name in ("person", "dog", "person-000", "dog-000")} == {"FINISHED"}
    assert {logged[name] for name in ("person-001", "dog-001")} <= {"FINISHED", "KILLED"}

    _, again, _ = search(path, storage, resume=True)
    assert [scores(prompt) for prompt in again.prompts] == [scores(prompt) for prompt in result.prompts]
    assert again.prompts[0].best == person.best


def log_earlier_search(path: Path, storage: Path) -> None:
    """Let an earlier search on the same base have chosen KNOWN."""
    work = check_batch(path, storage=storage, run="run")
    earlier = search_result("earlier")
    (prompt,) = earlier.prompts
    trials = tuple(
        trial.model_copy(update={"configuration": KNOWN}) if trial.index == prompt.best else trial
        for trial in prompt.trials
    )
    prompt = prompt.model_copy(update={"trials": trials})
    earlier = earlier.model_copy(update={"base_revision": work.spec.revision, "prompts": (prompt,)})
    log_search(earlier, tracking_uri=None, root=work.run.registry)


def run_and_kill(path: Path, storage: Path, head: Head) -> str:
    """Submit the search as a process of its own, and kill that as soon as a trial has a score; what it printed."""
    command = [
        sys.executable,
        "-m",
        "jobs.search",
        str(path),
        f"--storage={storage}",
        "--run-id=run",
        "--lanes=1",
        "--slots=4",
    ]
    log = path.with_name("search.log")
    environment = os.environ | head.environment | {"PYTHONUNBUFFERED": "1"}
    with log.open("w") as output:
        driver = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=output)
    wait_until(lambda: driver.poll() is not None or list(storage.glob("run/trials/*/*/reports.json")))
    assert driver.poll() is None, log.read_text()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return log.read_text()


def logged_runs(registry: Path) -> dict[str, str]:
    """Name -> status of the runs that MLflow has of searches."""
    client = MlflowClient(local_uri(registry))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}


def test_a_trial_that_diverges_ends_once_and_the_others_go_on(tmp_path: Path, small_sd3: Path) -> None:
    class Told(Planned):
        def __init__(self) -> None:
            super().__init__([{"rank": 2}, {"learning_rate": 1e38, "steps": 50}])
            self.told: dict[int, Figures | None] = {}

        def tell(self, index: int, figures: Figures | None) -> None:
            assert index not in self.told
            self.told[index] = figures

    spec, source = resolve_base(str(small_sd3)), Told()
    person = {"person": SearchGroup("person", (small_trials.plan(tmp_path, spec),))}
    queue = start_queue(TrialQueue, person)
    searcher = GroupSearcher(
        {"person": source}, person, 2, on_open=queue.open.remote, on_close=queue.close.remote
    )
    tuner = make_tuner(
        queue,
        person,
        searcher,
        small_trials.SEARCH,
        concurrent=2,
        storage=str(tmp_path / "tune"),
        name="search",
    )

    def train() -> None:
        small_trials.run_lane(tmp_path, spec, QueueClient(queue, "lane"))

    lane = Thread(target=train, daemon=True)
    lane.start()
    results = tuner.fit()
    ray.get(queue.complete.remote())
    lane.join(60)

    assert not lane.is_alive()
    assert results.num_errors == 0
    assert searcher.is_done
    good, bad = (results[index].metrics or {} for index in range(2))
    assert (good["steps"], good["training_iteration"]) == (8, 2)
    assert "lower the learning rate" in bad[FAILURE]
    assert bad["training_iteration"] == 1
    assert source.told[0] is not None
    assert source.told[1] is None
