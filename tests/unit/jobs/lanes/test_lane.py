"""A lane trains, samples and hands over what the queue gives it, and loses nothing when it is stopped or killed."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from corrector.adapters import load_adapter
from corrector.base import BaseSpec, resolve_base
from corrector.evaluation.negatives import likely_negatives
from corrector.record.correction_record import CorrectionRecord
from jobs.correction.sampling import CorrectionPolicy, read_sampled
from jobs.inputs.prompt_task import PromptTask
from jobs.lanes.lane import Lane
from jobs.lanes.queue import PromptQueue
from jobs.lanes.worker_group import WorkerGroup
from tests.support.lanes import EVALUATION, LocalClient, curve, prompt_tasks, run_lane, settings

NAMES = ("a", "person", "dog")


@pytest.fixture(scope="module")
def spec(small_sd3: Path) -> BaseSpec:
    return resolve_base(str(small_sd3))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, spec: BaseSpec) -> list[PromptTask]:
    """The prompts NAMES, trained and drawn by a lane of two slots; read only."""
    folder = tmp_path_factory.mktemp("undisturbed")
    tasks = prompt_tasks(folder, spec, NAMES)
    queue = PromptQueue(tasks)
    run_lane(folder, spec, LocalClient(queue), evaluation=EVALUATION)
    assert [each.state for each in queue.snapshot()] == ["sampled"] * 3
    return tasks


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, spec: BaseSpec) -> PromptTask:
    """The first of NAMES, trained and drawn by a lane of two slots without another prompt; read only."""
    folder = tmp_path_factory.mktemp("alone")
    (task,) = prompt_tasks(folder, spec, NAMES[:1])
    run_lane(folder, spec, LocalClient(PromptQueue([task])))
    return task


def test_every_prompt_ends_with_an_adapter_a_curve_and_both_arms(undisturbed: list[PromptTask]) -> None:
    for task in undisturbed:
        folder = task.folder
        images = CorrectionRecord.images(folder.sampled.path)
        assert len(images.before) == len(images.after) == 4
        assert [len(arm) for guard in images.guards for arm in guard] == [2, 2]
        assert [len(arm) for negative in images.negatives for arm in negative] == [3] * 4
        named = [
            (negative.prompt, len(negative.seeds)) for negative in read_sampled(folder)["hard_negatives"]
        ]
        assert named == [(negative.text, 3) for negative in likely_negatives(task.entry, 2)]
        assert len(images.exemplars) == len(images.held_out) == 3
        assert (folder.sampled.path / "adapter" / "pytorch_lora_weights.safetensors").is_file()
        assert len(curve(task)) == 6
        assert not folder.checkpoint.exists()


def test_a_prompt_trains_the_same_whatever_shares_its_lane(
    undisturbed: list[PromptTask], alone: PromptTask
) -> None:
    assert curve(undisturbed[0]) == pytest.approx(curve(alone), abs=1e-4)


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_an_interrupted_lane_goes_on_where_it_was(
    tmp_path: Path, spec: BaseSpec, undisturbed: list[PromptTask], ending: str
) -> None:
    tasks = prompt_tasks(tmp_path, spec, NAMES[:2])
    if ending == "stopped":
        run_lane(tmp_path, spec, LocalClient(PromptQueue(tasks), stop_after=3))
    else:
        with pytest.raises(KeyboardInterrupt):
            run_lane(tmp_path, spec, LocalClient(PromptQueue(tasks), die_after=3))
    assert not any(task.folder.sampled.exists() for task in tasks)
    assert all(task.folder.checkpoint.exists() for task in tasks)
    run_lane(tmp_path, spec, LocalClient(PromptQueue(tasks)))
    for task, reference in zip(tasks, undisturbed[:2], strict=True):
        assert curve(task) == pytest.approx(curve(reference), abs=1e-4)


def test_a_prompt_that_diverges_fails_alone_with_its_reason(tmp_path: Path, spec: BaseSpec) -> None:
    good, bad = prompt_tasks(tmp_path, spec, ("person", "dog"))
    diverging = bad.entry.hyperparameters.model_copy(update={"learning_rate": 1e38, "steps": 50})
    entry = bad.entry.model_copy(update={"hyperparameters": diverging})
    bad = replace(bad, entry=entry)
    queue = PromptQueue([good, bad])
    run_lane(tmp_path, spec, LocalClient(queue))
    states = {each.work_id: each for each in queue.snapshot()}
    assert states[good.work_id].state == "sampled"
    assert states[bad.work_id].state == "failed"
    assert "learning rate" in states[bad.work_id].detail


def test_a_lane_whose_base_is_offloaded_trains_and_samples_the_same(
    tmp_path: Path, spec: BaseSpec, alone: PromptTask
) -> None:
    (offloaded,) = prompt_tasks(tmp_path, spec, NAMES[:1])
    streaming = replace(settings(tmp_path), offload=True, checkpointing=True)
    Lane(spec, LocalClient(PromptQueue([offloaded])), streaming, CorrectionPolicy).run()

    assert curve(offloaded) == curve(alone)
    images = [CorrectionRecord.images(task.folder.sampled.path).after for task in (alone, offloaded)]
    assert [path.read_bytes() for path in images[0]] == [path.read_bytes() for path in images[1]]


def test_a_damaged_checkpoint_means_starting_again(tmp_path: Path, spec: BaseSpec) -> None:
    tasks = prompt_tasks(tmp_path, spec, ("person",))
    run_lane(tmp_path, spec, LocalClient(PromptQueue(tasks), stop_after=3))
    for file in tasks[0].folder.checkpoint.path.iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    run_lane(tmp_path, spec, LocalClient(PromptQueue(tasks)))
    assert len(curve(tasks[0])) == 6


def test_two_workers_of_a_lane_train_what_one_trains_alone(
    tmp_path: Path, spec: BaseSpec, undisturbed: list[PromptTask]
) -> None:
    together = prompt_tasks(tmp_path, spec, NAMES)
    arguments = (2, str(tmp_path / "rendezvous"), tmp_path, spec, together)
    follower = multiprocessing.get_context("spawn").Process(target=run_worker, args=(1, *arguments))
    follower.start()  # it waits for the leader
    # Two prompts of the three have been under way already, so both workers go on from what the leader reads.
    run_lane(tmp_path, spec, LocalClient(PromptQueue(together), stop_after=3))
    run_worker(0, *arguments)
    follower.join()
    assert follower.exitcode == 0
    for one, two in zip(undisturbed, together, strict=True):
        assert curve(two) == pytest.approx(curve(one), abs=1e-4)
        adapters = [load_adapter(task.folder.sampled.path / "adapter").weights for task in (one, two)]
        for path, pair in adapters[0].items():
            for expected, found in zip(pair, adapters[1][path], strict=True):
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def run_worker(
    rank: int, size: int, rendezvous: str, folder: Path, spec: BaseSpec, tasks: list[PromptTask]
) -> None:
    """One worker of a lane, alone in its process; only the leader has a queue."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=240),  # where the other has failed
    )
    workers = WorkerGroup()
    client = LocalClient(PromptQueue(tasks if workers.rank == 0 else []))
    Lane(spec, client, settings(folder), CorrectionPolicy, workers).run()
    assert (client.reports > 0) == (workers.rank == 0)
    torch.distributed.destroy_process_group()
