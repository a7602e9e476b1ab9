"""The queue of a search lets trials begin, go on where their journal ends, and end before their time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from corrector.evaluation.rungs import rungs
from corrector.evaluation.trial_score import SampleFeatures, TrialScore
from corrector.prompts import EvaluationSettings, FailingPrompt, HyperParameters, SearchSettings
from corrector.prompts.search_settings import Configuration
from corrector.record.search_results import RungReport
from corrector.storage import Storage
from jobs.lanes.queue import Progress
from jobs.tuning.plan import PromptSearch, SearchGroup
from jobs.tuning.queue import DECIDED, TrialQueue
from jobs.tuning.trials import Outcome

FEATURES = SampleFeatures(torch.zeros(2, 3), (torch.zeros(1, 3),))


def plan(folder: Path, name: str = "person", work_id: str = "0123456789abcdef0123") -> PromptSearch:
    entry = FailingPrompt(
        name=name,
        prompt=f"a {name}",
        exemplars="exemplars",
        hyperparameters=HyperParameters(rank=4, steps=40, preservation="none"),
    )
    found = rungs(SearchSettings(), EvaluationSettings(), steps=40, num_inference_steps=4)
    return PromptSearch(work_id, entry, "key", Storage.of(folder), found)


def opened(folder: Path, *configurations: Configuration) -> TrialQueue:
    queue = TrialQueue({"person": SearchGroup("person", (plan(folder),))})
    for index, configuration in enumerate(configurations):
        plan(folder).trial_folder(index).begin(configuration)
        queue.open("person", index, configuration)
    return queue


def report(rung: int, steps: int, score: float = 0.5) -> RungReport:
    scored = TrialScore(
        score=score, distance=score, fid=1, fid_base=2, kid=1, kid_base=2, damage=0, diversity=1, n=8
    )
    return RungReport(rung=rung, steps=steps, seconds=1.0, score=scored)


def claimed(queue: TrialQueue, lane: str = "lane") -> list[str]:
    return [task.work_id for task in queue.claim(lane, 9, max_rank=9)]


def test_a_trial_is_opened_once_and_trains_with_its_own_hyper_parameters(tmp_path: Path) -> None:
    queue = opened(tmp_path, {"rank": 2}, {"rank": 8})
    queue.open("person", 1, {"rank": 8})

    tasks = queue.claim("lane", 9, max_rank=9)

    assert [task.entry.hyperparameters.rank for task in tasks] == [2, 8]


def test_a_score_is_seen_once_however_often_it_is_delivered(tmp_path: Path) -> None:
    queue = opened(tmp_path, {"rank": 2})
    (name,) = claimed(queue)
    for _ in range(2):
        queue.deliver(name, report(0, 10))

    view = queue.view([name], 0)

    assert [metrics["steps"] for metrics in view.metrics] == [10]
    assert not view.ended
    assert queue.view([name], 1).metrics == ()


def test_a_trial_that_is_closed_waits_for_no_lane_and_keeps_its_end(tmp_path: Path) -> None:
    queue = opened(tmp_path, {"rank": 2}, {"rank": 8})
    queue.close("person", 0)

    assert claimed(queue) == [plan(tmp_path).trial_id(1)]
    assert plan(tmp_path).trial_folder(0).outcome == Outcome(state="stopped")


def test_a_lane_is_told_which_of_its_trials_to_end(tmp_path: Path) -> None:
    queue = opened(tmp_path, {"rank": 2}, {"rank": 8})
    names = claimed(queue)
    queue.close("person", 1)

    assert queue.closed(names) == [names[1]]
    queue.report("lane", [Progress(names[1], "stopped")])
    assert queue.view([names[1]], 0).ended


def test_a_closed_trial_whose_lane_dies_does_not_begin_again(tmp_path: Path) -> None:
    queue = opened(tmp_path, {"rank": 2}, {"rank": 8})
    names = claimed(queue)
    queue.close("person", 0)
    queue.process_lost("lane", "killed")

    assert claimed(queue, "another") == [names[1]]
    assert queue.losses() == 1


def test_a_search_that_goes_on_repeats_scores_and_trains_nothing_that_ended(tmp_path: Path) -> None:
    finished, stopped, failed, halfway = (plan(tmp_path).trial_folder(index) for index in range(4))
    for folder, steps in ((finished, (10, 20, 40)), (stopped, (10,)), (halfway, (10, 20))):
        for rung, at in enumerate(steps):
            folder.add_report(report(rung, at), FEATURES)
    stopped.end(Outcome(state="stopped"))
    failed.end(Outcome(state="failed", detail="the loss became nan"))

    queue = opened(tmp_path, {"rank": 1}, {"rank": 2}, {"rank": 3}, {"rank": 4})
    views = [queue.view([plan(tmp_path).trial_id(index)], 0) for index in range(4)]

    assert [len(view.metrics) for view in views] == [3, 1, 0, 2]
    assert [view.ended for view in views] == [True, True, True, False]
    assert views[2].failure == "the loss became nan"
    assert claimed(queue) == [plan(tmp_path).trial_id(3)]
    # What went on from a rung was allowed to; only the last rung of what was under way is still to be decided.
    assert [metrics[DECIDED] for metrics in views[3].metrics] == [True, False]


def test_when_the_job_stops_every_trial_ends_for_tune_and_none_for_good(tmp_path: Path) -> None:
    queue = opened(tmp_path, {"rank": 2})
    (name,) = claimed(queue)
    queue.stop()

    assert queue.view([name], 0).ended
    queue.close("person", 0)
    assert plan(tmp_path).trial_folder(0).outcome is None


def test_confirmation_is_one_more_score_of_a_finished_trial(tmp_path: Path) -> None:
    folder = plan(tmp_path).trial_folder(0)
    for rung, at in enumerate((10, 20, 40)):
        folder.add_report(report(rung, at), FEATURES)
    queue = opened(tmp_path, {"rank": 2})
    assert claimed(queue) == []

    name = queue.confirm("person", 0, EvaluationSettings(seed=7))

    assert claimed(queue) == [name]
    queue.deliver(name, report(3, 40))
    assert len(queue.view([name], 0).metrics) == 4


def test_a_journal_gives_back_the_features_that_it_was_given(tmp_path: Path) -> None:
    folder = plan(tmp_path).trial_folder(0)
    folder.add_report(report(0, 10), FEATURES)

    assert torch.equal(folder.features.own, FEATURES.own)
    assert len(folder.features.guards) == 1


def test_a_trial_of_a_group_has_the_mean_score_of_its_prompts_and_ends_with_all_of_them(
    tmp_path: Path,
) -> None:
    plans = (
        plan(tmp_path / "cat", "cat", "cat-0123456789abcdef"),
        plan(tmp_path / "dog", "dog", "dog-0123456789abcdef"),
    )
    group = SearchGroup("batch", plans)
    queue = TrialQueue({"batch": group})
    group.begin(0, {"rank": 2})
    names = queue.open("batch", 0, {"rank": 2})
    assert claimed(queue) == list(names)

    queue.deliver(names[0], report(0, 10, 0.4))
    assert queue.view(names, 0).metrics == ()
    queue.deliver(names[1], report(0, 10, 0.8))
    (metrics,) = queue.view(names, 0).metrics
    assert metrics["score"] == pytest.approx(0.6)
    assert (metrics["steps"], metrics["seconds"]) == (10, 2.0)

    queue.report("lane", [Progress(names[0], "sampled")])
    assert not queue.view(names, 1).ended
    queue.close("batch", 0)
    assert queue.closed(names) == [names[1]]
    queue.report("lane", [Progress(names[1], "failed", detail="the loss became nan")])
    assert queue.view(names, 1).ended
    assert queue.view(names, 1).failure == "the loss became nan"


def test_what_a_trial_imports_is_without_torch() -> None:
    heavy = ["torch", "onnxruntime", "diffusers", "mlflow"]
    code = f"import jobs.tuning.queue, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_trial_that_waits_is_answered_when_there_is_news(tmp_path: Path) -> None:
    queue = opened(tmp_path, {"rank": 2})
    (name,) = claimed(queue)

    async def search() -> None:
        waiting = asyncio.create_task(queue.news([name], 0))
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.deliver(name, report(0, 10))
        view = await asyncio.wait_for(waiting, 60)
        assert [metrics["steps"] for metrics in view.metrics] == [10]

        ending = asyncio.create_task(queue.news([name], 1))
        queue.report("lane", [Progress(name, "stopped")])
        assert (await asyncio.wait_for(ending, 60)).ended

    asyncio.run(search())
