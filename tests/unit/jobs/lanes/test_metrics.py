"""What a job's metrics say; that Ray exports them is shown in tests/system/endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corrector.base import resolve_base
from jobs.correction.sampling import CorrectionPolicy
from jobs.inputs import counted_cache
from jobs.inputs.counted_cache import CountedCache
from jobs.lanes import metrics
from jobs.lanes.lane import Lane
from jobs.lanes.metrics import JobMetrics, LaneMetrics
from jobs.lanes.queue import Progress, PromptQueue
from tests.support.lanes import EVALUATION, LocalClient, prompt_tasks, settings

RECORDED: dict[tuple[str, str], float] = {}


class Recorded:
    """A metric of Ray that keeps its values in this process: by name and the value of its last tag."""

    def __init__(self, name: str, description: str, *rest: Any) -> None:
        self._name, self._tags = name.removeprefix("corrector_job_"), ((), *rest)[-1]

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        if value is not None:
            RECORDED[self._key(tags or {})] = value

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        key = self._key(tags or {})
        RECORDED[key] = RECORDED.get(key, 0.0) + value

    observe = inc

    def _key(self, tags: dict[str, str]) -> tuple[str, str]:
        assert set(tags) == set(self._tags), "Ray refuses other tags"
        return self._name, tags[self._tags[-1]] if tags else ""


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, name, Recorded)
    monkeypatch.setenv("CORRECTOR_RUN", "night")
    monkeypatch.setattr("ray.util.metrics.Counter", Recorded)
    counted_cache._reads.cache_clear()
    RECORDED.clear()
    yield
    counted_cache._reads.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of `time.monotonic`, which a test sets."""
    now = [0.0]
    monkeypatch.setattr("jobs.lanes.metrics.time.monotonic", lambda: now[0])
    return now


def test_prompts_by_state_and_the_age_of_the_queue(clock: list[float]) -> None:
    job = JobMetrics("night")
    job.begin({"earlier": "corrected"})
    job.update([Progress("a", "waiting"), Progress("b", "waiting"), Progress("earlier", "sampled")])
    clock[0] = 90.0
    job.update([Progress("a", "training"), Progress("b", "waiting")])
    states = {state: RECORDED["prompts", state] for state in ("waiting", "training", "corrected", "failed")}
    assert states == {"waiting": 1, "training": 1, "corrected": 1, "failed": 0}
    assert RECORDED["queue_age_seconds", "night"] == 90.0
    job.settled("b", "failed")
    job.settled("a", "corrected", {"scoring": 4.0, "training": 60.0})
    job.update([Progress("a", "sampled")])
    assert (RECORDED["prompts", "corrected"], RECORDED["prompts", "failed"]) == (2, 1)
    assert (RECORDED["stage_seconds", "scoring"], RECORDED["queue_age_seconds", "night"]) == (4.0, 0.0)


@pytest.mark.parametrize(("price", "dollars"), [("2.5", 7.5), (None, None), ("much", None)])
def test_device_hours_and_dollars(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, price: str | None, dollars: float | None
) -> None:
    if price is not None:
        monkeypatch.setenv("CORRECTOR_DEVICE_HOUR_DOLLARS", price)
    job = JobMetrics("night")
    for hour, lanes in ((0.5, 0), (1.0, 2), (1.5, 1)):
        clock[0] = hour * 3600
        job.lanes(lanes, devices=2, restarts=1)
    assert RECORDED["device_hours", "night"] == 3.0
    assert RECORDED.get(("dollars", "night")) == dollars
    assert (RECORDED["lanes", "night"], RECORDED["lane_restarts", "night"]) == (1, 1)


def test_a_lane_reports_its_slots_steps_images_checkpoints_and_reads(tmp_path: Path, small_sd3: Path) -> None:
    spec = resolve_base(str(small_sd3))
    tasks = prompt_tasks(tmp_path, spec, ("person", "dog"), steps=3)
    few = {"images": 2, "guard_images": 1, "hard_negatives": 1, "hard_negative_images": 2}
    given = settings(tmp_path, evaluation=EVALUATION.model_copy(update=few))
    busy: list[float] = []

    class Watched(LaneMetrics):
        def busy(self, slots: int) -> None:
            super().busy(slots)
            busy.append(RECORDED["slots_busy", "lane-1"])

    lane = Watched("lane-1", slots=2)
    Lane(spec, LocalClient(PromptQueue(tasks)), given, CorrectionPolicy, observer=lane).run()
    assert RECORDED["steps", "lane-1"] == 6
    # Base and adapter of two prompts: 2 images of the prompt, 1 of the guard, 2 of the hard negative.
    assert RECORDED["images", "lane-1"] == 2 * 2 * (2 + 1 + 2)
    assert RECORDED["slots", "lane-1"] == 2 and busy[:2] == [2, 2] and busy[-1] == 0
    assert RECORDED["checkpoint_time_seconds", "lane-1"] > 1.7e9
    assert 0 < RECORDED["corrector_cache_disk_free_bytes", ""] < RECORDED["corrector_cache_disk_bytes", ""]
    assert RECORDED["cache_reads", "hit"] > 0


def test_only_the_leader_of_a_lane_counts_its_steps() -> None:
    follower = LaneMetrics("lane-1", slots=2, leader=False)
    follower.busy(2)
    follower.stepped(2)
    follower.saved()
    follower.sampled(5)
    assert RECORDED == {("images", "lane-1"): 5}


def test_reads_of_the_cache_are_hits_or_misses(tmp_path: Path) -> None:
    cache = CountedCache(tmp_path, counted_cache.count_cache_read)
    assert cache.get("absent") is None
    assert RECORDED == {("cache_reads", "miss"): 1}


def test_metrics_that_fail_leave_the_job_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any) -> None:
        raise RuntimeError("no metrics today")

    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, name, broken)
    monkeypatch.setattr("ray.util.metrics.Counter", broken)
    job, lane = JobMetrics("night"), LaneMetrics("lane-1", slots=2)
    job.update([Progress("a", "waiting")])
    job.settled("a", "failed")
    job.lanes(1, devices=1, restarts=0)
    lane.stepped(1)
    counted_cache.count_cache_read(True)
    assert "no metrics today" in caplog.text
