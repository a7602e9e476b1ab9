"""Keeps a job's lanes running: as many as fit on the cluster; starts more when it grows, and replaces lost lanes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from corrector.base import BaseSpec
from jobs.lanes.lane import PolicyFactory
from jobs.lanes.metrics import JobMetrics
from jobs.lanes.node_check import alive_nodes, draining_nodes
from jobs.lanes.plan import LanePlan
from jobs.lanes.ray_train import LaneRun

logger = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 20.0


class LanePool:
    """Starts, watches and ends lanes. Call `reconcile` often; it does not block for long."""

    def __init__(
        self,
        queue: Any,
        spec: BaseSpec,
        plan: LanePlan,
        storage: str,
        policy: PolicyFactory,
        metrics: JobMetrics,
        *,
        after: Sequence[Any] = (),
        max_lost: int = 3,
    ) -> None:
        """`storage`: Ray Train's, a path or an S3 URL; `after`: references to tasks that have to end before a lane trains."""
        self._queue = queue
        self._plan = plan
        self._start: Callable[[str], LaneRun] = lambda name: LaneRun(
            name, queue, spec, plan.settings, plan.resources, storage, policy, after=after
        )
        self._metrics = metrics
        self._max_lost = max_lost
        self._lanes: list[LaneRun] = []
        self._started = 0
        self._leaving: set[str] = set()
        self._lost: list[str] = []

    def reconcile(self, unsettled: int) -> str | None:
        """Let lanes on leaving nodes end, return the leases of lost lanes, and start lanes for waiting prompts.

        Args:
            unsettled: Number of prompts that are neither sampled nor failed.

        Returns:
            The reason to stop when too many lanes were lost; otherwise None.
        """
        if (leaving := draining_nodes()) != self._leaving:
            logger.warning("nodes leave the cluster, so their lanes save and end: %s", ", ".join(leaving))
            ray.get(self._queue.leave.remote(leaving))
            self._leaving = leaving
        for lane in [lane for lane in self._lanes if not lane.running]:
            self._lanes.remove(lane)
            if lane.error is None:
                ray.get(self._queue.release.remote(lane.name))
            else:
                self._lost.append(lane.error)
                ray.get(self._queue.return_leases.remote(lane.name, lane.error))
        if len(self._lost) >= self._max_lost and not self._lanes:
            return f"{len(self._lost)} lanes were lost; the last: {self._lost[-1]}"
        waiting, losses = ray.get([self._queue.waiting.remote(), self._queue.losses.remote()])
        self._metrics.lanes(len(self._lanes), devices=self._plan.resources.workers, restarts=losses)
        slots = self._plan.settings.slots
        wanted = min(math.ceil(unsettled / slots), self._plan.lanes_on(alive_nodes()))
        while waiting > 0 and len(self._lanes) < max(wanted, 1):
            self._started += 1
            self._lanes.append(self._start(f"lane-{self._started}"))
            waiting -= slots
        return None

    def stop(self) -> None:
        """Make all lanes save their slots and end, and wait for them at most `STOP_GRACE_SECONDS`."""
        ray.get(self._queue.stop.remote())
        self.join(STOP_GRACE_SECONDS)

    def join(self, seconds: float = STOP_GRACE_SECONDS) -> None:
        """Wait at most `seconds` for the end of all lanes."""
        until = time.monotonic() + seconds
        for lane in self._lanes:
            lane.join(max(0.0, until - time.monotonic()))
        running = sum(lane.running for lane in self._lanes)
        self._metrics.lanes(running, devices=self._plan.resources.workers)
