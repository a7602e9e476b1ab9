"""What a search costs: trials in packs with early stopping, in packs without, and as Tune runs them by itself.

    python -m tests.benchmarks.search [--trials 24] [--steps 100] [--arms packed-asha packed alone] [--out FILE.json]

All arms try the same configurations of the first prompt of the example search, on the embedded base and a Ray of this process.
``packed-asha`` is what ``jobs.search`` does; ``packed`` trains every trial to its end in the same lanes; ``alone`` gives each
trial a process of its own with one CPU, which loads the base and trains and scores that trial only. The clock runs from the
start of the lanes or trials, with texts and exemplars encoded, to the last score; the first two confirm the best on fresh
seeds besides, which counts against them. Scores can be compared: all finished trials have the same seeds and the whole
protocol.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from corrector.prompts import load_batch
from corrector.record.search_results import RungReport
from jobs.inputs.batch import BatchWork, check_batch
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import bound_threads
from jobs.lanes.lane import Lane, LaneSettings
from jobs.lanes.provisioning import connect
from jobs.lanes.queue import Progress
from jobs.tuning.configurations import proposals
from jobs.tuning.driver import SearchJob
from jobs.tuning.lane import TrialPolicy
from jobs.tuning.plan import PromptSearch, SearchGroup, plan_search
from jobs.tuning.queue import TrialQueue
from tests.benchmarks import command
from tests.support.paths import EXAMPLES

EXAMPLE = EXAMPLES / "search.yaml"
ARMS = ("packed-asha", "packed", "alone")
SPACE = {"rank": [4, 8, 16], "learning_rate": {"low": 5e-4, "high": 1e-2}}


class OneTrial:
    """The queue of a lane that has one trial."""

    def __init__(self, plan: PromptSearch, index: int) -> None:
        self._queue = TrialQueue({plan.entry.name: SearchGroup(plan.entry.name, (plan,))})
        self._queue.open(plan.entry.name, index, plan.trial_folder(index).configuration or {})
        self._queue.complete()

    def claim(self, count: int, *, max_rank: int) -> list[PromptTask]:
        return self._queue.claim("lane", count, max_rank=max_rank)

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        return self._queue.report("lane", progress)

    def deliver(self, work_id: str, report: RungReport) -> None:
        self._queue.deliver(work_id, report)

    def closed(self, held: Iterable[str]) -> list[str]:
        return self._queue.closed(held)

    def is_complete(self) -> bool:
        return self._queue.is_complete()


def work_of(folder: Path, options: argparse.Namespace, scheduler: str) -> BatchWork:
    """The first prompt of the example with the benchmark's search; without early stopping it is scored at its end only."""
    batch = load_batch(EXAMPLE)
    entry = batch.prompts[0]
    hyper = entry.hyperparameters.model_dump(exclude_defaults=True) | {"steps": options.steps}
    described = entry.model_dump(mode="json", exclude={"hyperparameters"}, exclude_defaults=True) | {
        "exemplars": str(batch.exemplar_folder(entry))
    }
    search: dict[str, Any] = {
        "trials": options.trials,
        "scheduler": scheduler,
        "space": SPACE,
        "confirmed": 1,
    }
    if scheduler == "none":
        search["rungs"] = 1
    content = {
        "base": "embedded",
        "evaluation": batch.evaluation.model_dump(mode="json", exclude_defaults=True),
        "search": search,
        "prompts": [described | hyper],
    }
    path = folder / "batch.json"
    folder.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return check_batch(path, storage=folder / "runs", run="run")


def packed(folder: Path, options: argparse.Namespace, scheduler: str) -> dict[str, Any]:
    """A search as `jobs.search` runs it."""
    work = work_of(folder, options, scheduler)
    connect(work.run.run)
    encode_everything(work)
    started = time.perf_counter()
    job = SearchJob(work, Console(file=io.StringIO()), warm_start=False)
    result, lost = job.search()
    seconds = time.perf_counter() - started
    assert lost is None, lost
    trials = result.prompts[0].trials
    scores = [trial.reports[-1].score.fid for trial in trials if trial.state == "finished"]
    steps = sum(trial.reports[-1].steps for trial in trials if trial.reports)
    return {"seconds": seconds, "finished": len(scores), "steps": steps, "best_fid": min(scores)}


def alone(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same trials as Tune runs them by itself: each in a process with one CPU."""
    work = work_of(folder, options, "none")
    work.run.create()
    (plan,) = plan_search(work, resume=False)
    source = proposals(work.batch.search, plan.entry)
    count = 0
    while (proposed := source.next()) is not None:
        plan.trial_folder(proposed[0]).begin(proposed[1])
        count += 1
    settings = LaneSettings(
        slots=1,
        rank=16,
        cache=work.run.cache,
        evaluation=work.batch.evaluation,
    )
    policy = partial(TrialPolicy, search=work.batch.search, gate=work.batch.gate)

    def train(config: dict[str, Any]) -> None:
        bound_threads(1)
        Lane(work.spec, OneTrial(plan, config["index"]), settings, policy).run()
        tune.report({"fid": plan.trial_folder(config["index"]).reports[-1].score.fid})

    connect(work.run.run)
    encode_everything(work)
    started = time.perf_counter()
    grid = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"index": tune.grid_search(list(range(count)))},
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    seconds = time.perf_counter() - started
    results = [grid[index] for index in range(len(grid))]
    scores = [result.metrics["fid"] for result in results if result.metrics and "fid" in result.metrics]
    return {
        "seconds": seconds,
        "finished": len(scores),
        "steps": count * options.steps,
        "best_fid": min(scores),
    }


def encode_everything(work: BatchWork) -> None:
    """Fill the cache, so that no trial encodes what all share."""
    from jobs.inputs.encoding import encode, split

    work.store_exemplars(work.tasks)
    for share in split(work.tasks, work.batch.evaluation, 1):
        encode(work.spec, share, work.run.cache, "cpu", 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description="What a search costs.")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file for the figures")
    options = parser.parse_args(arguments)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as name:
        for arm in options.arms:
            folder = Path(name) / arm
            if arm == "alone":
                found = alone(folder, options)
            else:
                found = packed(folder, options, "asha" if arm == "packed-asha" else "none")
            rows.append({"arm": arm, "trials": options.trials} | found)
            console.print(rows[-1])
    ray.shutdown()
    command.cpu_results("search", options, rows)


if __name__ == "__main__":
    main()
