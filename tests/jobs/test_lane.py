"""A lane trains, samples and hands over what the queue gives it, and loses nothing when it is stopped or killed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from corrector.adapters import load_adapter
from corrector.base import BaseSpec, ContentCache, resolve_base
from corrector.evaluation.negatives import likely_negatives
from corrector.prompts import EvaluationSettings, FailingPrompt, HyperParameters
from corrector.registry.record import CorrectionRecord
from jobs.arms import read_sampled
from jobs.crew import crew_of_this_process
from jobs.encoding import encode, split
from jobs.lane import Lane, LaneSettings
from jobs.queue import Progress, PromptQueue, WorkItem
from jobs.run_folder import PromptFolder

EVALUATION = EvaluationSettings(
    images=4, guard_images=2, hard_negatives=2, hard_negative_images=3, num_inference_steps=2
)


class LocalClient:
    """The queue in this process, which a test may stop, or whose lane it may kill, after a number of reports."""

    def __init__(
        self, queue: PromptQueue, *, stop_after: int | None = None, die_after: int | None = None
    ) -> None:
        self._queue = queue
        self._stop_after = stop_after
        self._die_after = die_after
        self.reports = 0

    def claim(self, count: int, *, max_rank: int) -> list[WorkItem]:
        return self._queue.claim("lane", count, max_rank=max_rank)

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        self.reports += 1
        if self._die_after is not None and self.reports > self._die_after:
            raise KeyboardInterrupt
        if self._stop_after is not None and self.reports >= self._stop_after:
            self._queue.stop()
        return self._queue.report("lane", progress)


@pytest.fixture(scope="module")
def spec(small_sd3: Path) -> BaseSpec:
    return resolve_base(str(small_sd3))


def work(folder: Path, spec: BaseSpec, names: Iterable[str], **hyper: object) -> list[WorkItem]:
    """Work items with random exemplars, prepared as the job's driver does it."""
    cache = ContentCache(folder / "cache")
    items = []
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        side = spec.resolution
        images = {key: torch.rand(3, 3, side, side, generator=generator) for key in ("training", "held_out")}
        cache.put(f"exemplars-{name}", images)
        values: dict[str, object] = {
            "rank": 2,
            "steps": 6,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "seed": seed,
        }
        entry = FailingPrompt(
            name=name,
            prompt=f"{name} lying on the grass",
            exemplars="exemplars",
            paraphrases=(f"{name} on the grass",),
            guard_prompts=(f"{name} on the road",),
            hyperparameters=HyperParameters.model_validate(values | hyper),
        )
        items.append(WorkItem(f"work-{name}", entry, f"exemplars-{name}", str(folder / "prompts" / name)))
    for share in split(items, EVALUATION, 1):
        encode(spec, share, folder / "cache", "cpu", 1)
    return items


def settings(folder: Path, *, slots: int = 2) -> LaneSettings:
    """A lane that saves and reports after every step."""
    return LaneSettings(
        slots=slots,
        rank=2,
        cache=folder / "cache",
        evaluation=EVALUATION,
        report_every=1,
        checkpoint_seconds=0.0,
        report_seconds=0.0,
    )


def run_lane(folder: Path, spec: BaseSpec, client: LocalClient, *, slots: int = 2) -> None:
    Lane(spec, client, settings(folder, slots=slots)).run()


def losses(item: WorkItem) -> list[float]:
    return [point["loss"] for point in read_sampled(PromptFolder(Path(item.folder)))["curve"]]


def test_every_prompt_ends_with_an_adapter_a_curve_and_both_arms(tmp_path: Path, spec: BaseSpec) -> None:
    items = work(tmp_path, spec, ("a", "person", "dog"))
    queue = PromptQueue(items)
    run_lane(tmp_path, spec, LocalClient(queue))
    assert [each.state for each in queue.snapshot()] == ["sampled"] * 3
    for item in items:
        folder = PromptFolder(Path(item.folder))
        images = CorrectionRecord.images(folder.sampled)
        assert len(images.before) == len(images.after) == 4
        assert [len(arm) for guard in images.guards for arm in guard] == [2, 2]
        assert [len(arm) for negative in images.negatives for arm in negative] == [3] * 4
        named = [
            (negative.prompt, len(negative.seeds)) for negative in read_sampled(folder)["hard_negatives"]
        ]
        assert named == [(negative.text, 3) for negative in likely_negatives(item.entry, 2)]
        assert len(images.exemplars) == len(images.held_out) == 3
        assert (folder.sampled / "adapter" / "pytorch_lora_weights.safetensors").is_file()
        assert len(losses(item)) == 6
        assert not folder.checkpoint.exists()


def test_a_prompt_trains_the_same_whatever_shares_its_lane(tmp_path: Path, spec: BaseSpec) -> None:
    together = work(tmp_path / "together", spec, ("person", "dog"))
    run_lane(tmp_path / "together", spec, LocalClient(PromptQueue(together)))
    alone = work(tmp_path / "alone", spec, ("person", "dog"))[:1]
    run_lane(tmp_path / "alone", spec, LocalClient(PromptQueue(alone)), slots=1)
    assert losses(together[0]) == pytest.approx(losses(alone[0]), abs=1e-4)


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_an_interrupted_lane_goes_on_where_it_was(tmp_path: Path, spec: BaseSpec, ending: str) -> None:
    undisturbed = work(tmp_path / "undisturbed", spec, ("person", "dog"))
    run_lane(tmp_path / "undisturbed", spec, LocalClient(PromptQueue(undisturbed)))
    items = work(tmp_path / "disturbed", spec, ("person", "dog"))
    if ending == "stopped":
        run_lane(tmp_path / "disturbed", spec, LocalClient(PromptQueue(items), stop_after=3))
    else:
        with pytest.raises(KeyboardInterrupt):
            run_lane(tmp_path / "disturbed", spec, LocalClient(PromptQueue(items), die_after=3))
    assert not any(PromptFolder(Path(item.folder)).is_sampled for item in items)
    assert all(PromptFolder(Path(item.folder)).checkpoint.exists() for item in items)
    run_lane(tmp_path / "disturbed", spec, LocalClient(PromptQueue(items)))
    for item, reference in zip(items, undisturbed, strict=True):
        assert losses(item) == pytest.approx(losses(reference), abs=1e-4)


def test_a_prompt_that_diverges_fails_alone_with_its_reason(tmp_path: Path, spec: BaseSpec) -> None:
    good, bad = work(tmp_path, spec, ("person", "dog"))
    diverging = bad.entry.hyperparameters.model_copy(update={"learning_rate": 1e38, "steps": 50})
    entry = bad.entry.model_copy(update={"hyperparameters": diverging})
    bad = WorkItem(bad.work_id, entry, bad.exemplars, bad.folder)
    queue = PromptQueue([good, bad])
    run_lane(tmp_path, spec, LocalClient(queue))
    states = {each.work_id: each for each in queue.snapshot()}
    assert states[good.work_id].state == "sampled"
    assert states[bad.work_id].state == "failed"
    assert "learning rate" in states[bad.work_id].detail


def test_a_damaged_checkpoint_means_starting_again(tmp_path: Path, spec: BaseSpec) -> None:
    items = work(tmp_path, spec, ("person",))
    run_lane(tmp_path, spec, LocalClient(PromptQueue(items), stop_after=3))
    for file in PromptFolder(Path(items[0].folder)).checkpoint.iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    run_lane(tmp_path, spec, LocalClient(PromptQueue(items)))
    assert len(losses(items[0])) == 6


def test_two_workers_of_a_lane_train_what_one_trains_alone(tmp_path: Path, spec: BaseSpec) -> None:
    names = ("a", "person", "dog")
    alone = work(tmp_path / "alone", spec, names)
    run_lane(tmp_path / "alone", spec, LocalClient(PromptQueue(alone)))
    together = work(tmp_path / "together", spec, names)
    # One prompt of the three has been under way already, so the crew goes on from what the leader reads.
    run_lane(tmp_path / "together", spec, LocalClient(PromptQueue(together), stop_after=3))
    arguments = (2, str(tmp_path / "rendezvous"), tmp_path / "together", spec, together)
    torch.multiprocessing.spawn(run_worker, args=arguments, nprocs=2)
    for one, two in zip(alone, together, strict=True):
        assert losses(two) == pytest.approx(losses(one), abs=1e-4)
        adapters = [
            load_adapter(PromptFolder(Path(item.folder)).sampled / "adapter").weights for item in (one, two)
        ]
        for path, pair in adapters[0].items():
            for expected, found in zip(pair, adapters[1][path], strict=True):
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def run_worker(
    rank: int, size: int, rendezvous: str, folder: Path, spec: BaseSpec, items: list[WorkItem]
) -> None:
    """One worker of a lane in a process of its own; only the leader has a queue."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size
    )
    crew = crew_of_this_process()
    client = LocalClient(PromptQueue(items if crew.rank == 0 else []))
    Lane(spec, client, settings(folder), crew).run()
    assert (client.reports > 0) == (crew.rank == 0)
    torch.distributed.destroy_process_group()
