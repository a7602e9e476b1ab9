"""Prometheus metrics of jobs, as `ray_corrector_job_*`, tagged with the run. No failure of a metric reaches the job."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from ray.util.metrics import Counter, Gauge, Histogram

from corrector.files import disk_space
from corrector.settings import Settings
from jobs.inputs.counted_cache import count_cache_read
from jobs.lanes.lane import LaneObserver
from jobs.lanes.queue import Progress
from jobs.log_context import name_of_run

logger = logging.getLogger(__name__)

PRICE_VARIABLE = "CORRECTOR_DEVICE_HOUR_DOLLARS"
BUDGET_VARIABLE = "CORRECTOR_BUDGET_DOLLARS"
STATES = (
    *("waiting", "training", "sampling", "sampled", "corrected", "rejected"),
    *("failed", "stopped", "unfinished"),
)
_STAGE_SECONDS = [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200]

Owner = TypeVar("Owner")
Given = ParamSpec("Given")


def _harmless(
    method: Callable[Concatenate[Owner, Given], None],
) -> Callable[Concatenate[Owner, Given], None]:
    """Log the first error that `method` raises, and raise none."""
    log = logger.warning

    @wraps(method)
    def call(self: Owner, /, *given: Given.args, **named: Given.kwargs) -> None:
        nonlocal log
        try:
            method(self, *given, **named)
        except Exception:
            log("metrics of the job are incomplete", exc_info=True)
            log = logger.debug

    return call


class JobMetrics:
    """Metrics that the driver knows: prompts, the queue, lanes, cost."""

    @_harmless
    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._states: dict[str, str] = {}
        self._settled: set[str] = set()
        self._waiting_since: dict[str, float] = {}
        self._device_hours = 0.0
        self._counted = time.monotonic()
        self._price = _dollars(PRICE_VARIABLE)
        self._prompts = Gauge(
            "corrector_job_prompts", "Prompts, or trials of a search, by state.", ("run", "state")
        )
        self._stages = Histogram(
            "corrector_job_stage_seconds", "Time of a prompt in a stage.", _STAGE_SECONDS, ("run", "stage")
        )
        self._gauges = _gauges(
            queue_age_seconds="Since when the prompt that waits longest for a lane waits.",
            lanes="Lanes that run or start.",
            lane_restarts="Times that a process of a lane was lost.",
            device_hours="Hours of GPUs that lanes held, of CPU workers where there is no GPU.",
            dollars=f"Price of the device hours, by {PRICE_VARIABLE}.",
            budget_dollars=f"What the run may cost, by {BUDGET_VARIABLE}.",
        )
        self._set("budget_dollars", _dollars(BUDGET_VARIABLE))

    @_harmless
    def begin(self, settled: Mapping[str, str]) -> None:
        """Forget all prompts or trials but these, whose status by work id is known from earlier submissions."""
        self._states, self._settled = dict(settled), set(settled)
        self._count_prompts()

    @_harmless
    def update(self, progress: Iterable[Progress]) -> None:
        """Take over the states that the queue reports."""
        now = time.monotonic()
        for each in progress:
            if each.work_id not in self._settled:
                self._states[each.work_id] = each.state
        waiting = {name for name, state in self._states.items() if state == "waiting"}
        self._waiting_since = {name: self._waiting_since.get(name, now) for name in waiting}
        self._set("queue_age_seconds", now - min(self._waiting_since.values(), default=now))
        self._count_prompts()

    @_harmless
    def settled(self, work_id: str, status: str, seconds: Mapping[str, float] | None = None) -> None:
        """A prompt has its result; `seconds` per stage, if this submission worked on it."""
        self._settled.add(work_id)
        self._states[work_id] = status
        for stage, value in (seconds or {}).items():
            self._stages.observe(value, tags={**self._tags, "stage": stage})
        self._count_prompts()

    @_harmless
    def lanes(self, running: int, *, devices: int, restarts: int | None = None) -> None:
        """There are `running` lanes with `devices` devices each; called often, since it counts the time between two calls.

        `restarts`: how often a process of a lane was lost so far; None where nothing is known.
        """
        now = time.monotonic()
        self._device_hours += running * devices * (now - self._counted) / 3600
        self._counted = now
        self._set("lanes", running)
        self._set("lane_restarts", restarts)
        self._set("device_hours", self._device_hours)
        if self._price is not None:
            self._set("dollars", self._device_hours * self._price)

    def _count_prompts(self) -> None:
        tally = Tally(self._states.values())
        for state in STATES:
            self._prompts.set(tally[state], tags={**self._tags, "state": state})

    def _set(self, name: str, value: float | None) -> None:
        self._gauges[name].set(value, tags=self._tags)


class LaneMetrics(LaneObserver):
    """Metrics of one worker of a lane; those of the whole lane are reported by its leader."""

    @_harmless
    def __init__(self, lane: str, slots: int, *, leader: bool = True) -> None:
        self._tags = {"run": name_of_run(), "lane": lane}
        self._leader = leader
        self._steps = Counter("corrector_job_steps", "Optimiser steps of fine-tunes.", ("run", "lane"))
        self._images = Counter("corrector_job_images", "Images sampled.", ("run", "lane"))
        self._gauges = _gauges(
            "lane",
            slots="Slots of the lane.",
            slots_busy="Slots that hold a prompt.",
            checkpoint_time_seconds="Unix time of the lane's start or its last checkpoints, the later one.",
        )
        self._disk = [
            Gauge(f"corrector_cache_disk_{name}", "Of the disk of the node's cache.")
            for name in ("bytes", "free_bytes")
        ]
        if leader:
            self._set("slots", slots)
        self.saved()

    @_harmless
    def busy(self, slots: int) -> None:
        if self._leader:
            self._set("slots_busy", slots)

    @_harmless
    def stepped(self, fine_tunes: int) -> None:
        if self._leader and fine_tunes:
            self._steps.inc(fine_tunes, tags=self._tags)

    @_harmless
    def sampled(self, images: int) -> None:
        if images:
            self._images.inc(images, tags=self._tags)

    @_harmless
    def saved(self) -> None:
        if self._leader:
            self._set("checkpoint_time_seconds", time.time())
            for gauge, size in zip(self._disk, disk_space(Settings.from_environment().cache), strict=True):
                gauge.set(size)

    def cache_read(self, hit: bool) -> None:
        count_cache_read(hit)

    def _set(self, name: str, value: float) -> None:
        self._gauges[name].set(value, tags=self._tags)


def _gauges(*tags: str, **descriptions: str) -> dict[str, Gauge]:
    return {name: Gauge(f"corrector_job_{name}", text, ("run", *tags)) for name, text in descriptions.items()}


def _dollars(variable: str) -> float | None:
    written = os.environ.get(variable)
    try:
        return float(written) if written else None
    except ValueError:
        logger.warning("%s: %r is no number of dollars; there is no such metric", variable, written)
        return None
