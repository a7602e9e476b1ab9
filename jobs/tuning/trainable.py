"""The trainable of Ray Tune: waits for the scores of its trial, which a lane computes, and reports them.

A search has dozens of these processes, so this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

GROUP, TRIAL = "group", "trial"
"""Keys of a trial's configuration that identify it: group and index; all others are hyper-parameters."""
METRIC, STEPS = "score", "steps"
"""Names of the metric that trials are compared by, and of the optimiser steps at which they are compared."""
FAILURE = "failure"
"""Name of the metric that a failed trial reports instead of a score."""


@dataclass(frozen=True)
class TrialView:
    """News of a trial for its process.

    Attributes:
        metrics: The scores that the process has not seen, in the form that Tune gets.
        ended: Whether no further score will come.
        failure: Why the trial failed; None where it did not.
    """

    metrics: tuple[dict[str, Any], ...]
    ended: bool
    failure: str | None


def run_trial(config: dict[str, Any], queue: Any) -> None:
    """Open the trial in the search's queue, an actor, and report each of its scores until it ends.

    A failed trial ends without an error, since Tune would start it again after one. When Tune stops it, `tune.report` does not
    return.
    """
    varied = {key: value for key, value in config.items() if key not in (GROUP, TRIAL)}
    names = ray.get(queue.open.remote(config[GROUP], config[TRIAL], varied))
    seen = 0
    while True:
        view: TrialView = ray.get(queue.news.remote(names, seen))
        for metrics in view.metrics:
            seen += 1
            tune.report(metrics)
        if view.failure is not None:
            tune.report({FAILURE: view.failure})
            return
        if view.ended:
            return
