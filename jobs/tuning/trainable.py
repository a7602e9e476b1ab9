"""What Ray Tune runs as a trial: it waits for the scores that a lane makes of its slot, and reports them.

A trial is a process that computes nothing, so this module imports no torch: a hundred of them must cost little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

GROUP, TRIAL = "group", "trial"
"""Keys of a trial's configuration that say which trial of which group it is; all others are hyper-parameters."""
FAILURE = "failure"
"""What a trial that failed reports instead of a score."""


@dataclass(frozen=True)
class TrialView:
    """Where a trial stands, as it sees it itself.

    Attributes:
        metrics: The scores that it does not know yet, as they are reported to Tune.
        ended: Whether no further score will come.
        failure: Why it could not go on; None where it could.
    """

    metrics: tuple[dict[str, Any], ...]
    ended: bool
    failure: str | None


def run_trial(config: dict[str, Any], queue: Any) -> None:
    """Open the trial in the search's queue, an actor, and report each of its scores until it ends.

    A trial that diverged, or whose lanes died, ends like any other: one that raised an error would be begun again. Where Tune
    stops it, `tune.report` does not return.
    """
    varied = {key: value for key, value in config.items() if key not in (GROUP, TRIAL)}
    names = ray.get(queue.open.remote(config[GROUP], config[TRIAL], varied))
    seen = 0
    while True:
        view: TrialView = ray.get(queue.look.remote(names, seen))
        for metrics in view.metrics:
            seen += 1
            tune.report(metrics)
        if view.failure is not None:
            tune.report({FAILURE: view.failure})
            return
        if view.ended:
            return
