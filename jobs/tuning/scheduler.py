"""Early stopping with Ray Tune: ASHA or HyperBand, separate for each group of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from corrector.prompts import SearchSettings
from jobs.tuning.plan import SearchGroup
from jobs.tuning.queue import DECIDED
from jobs.tuning.trainable import GROUP, METRIC, STEPS, TRIAL
from jobs.tuning.trials import OWN


def brackets(count: int, factor: int) -> list[int]:
    """The bracket of HyperBand for each trial in turn; trials after the last begin at the first again.

    Trials of bracket s skip the first s of `count` rungs. A bracket's number of trials is that of Li et al. 2018 (Hyperband: A
    Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR): with r rungs left, ceil(count / r * factor^(r - 1)).
    """
    shares = [-(-count * factor ** (left - 1) // left) for left in range(count, 0, -1)]
    # Spread evenly: the bracket that is farthest behind its share is next.
    given = [0] * count
    order = []
    for _ in range(sum(shares)):
        bracket = min(range(count), key=lambda each: (given[each] + 1) / shares[each])
        given[bracket] += 1
        order.append(bracket)
    return order


class GroupHalving(FIFOScheduler):
    """ASHA or HyperBand, separate for each group, since distances to different exemplars cannot be compared.

    HyperBand is asynchronous here: each of its brackets is an ASHA that begins at a later rung. The prompt's own configuration
    is not stopped and not compared with other trials: its score is often the worst, so all others would pass.
    """

    def __init__(self, search: SearchSettings, groups: Mapping[str, SearchGroup]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Ray has not annotated it
        self._never_stops = FIFOScheduler()
        self._halving = {
            name: [
                ASHAScheduler(
                    time_attr=STEPS,
                    metric=METRIC,
                    mode="min",
                    max_t=group.rungs[-1].steps,
                    grace_period=first.steps,
                    reduction_factor=search.reduction_factor,
                )
                for first in (group.rungs if search.scheduler == "hyperband" else group.rungs[:1])
            ]
            for name, group in groups.items()
        }
        self._order = {
            name: brackets(len(each), search.reduction_factor) for name, each in self._halving.items()
        }

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial to its bracket."""
        self._bracket(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that is not among the best of its rung; keep the decisions of an interrupted search."""
        decision: str = self._bracket(trial).on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result.get(DECIDED) else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Tell the trial's bracket."""
        self._bracket(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Tell the trial's bracket."""
        self._bracket(trial).on_trial_remove(tune_controller, trial)

    def _bracket(self, trial: Any) -> FIFOScheduler:
        if trial.config[TRIAL] == OWN:
            return self._never_stops
        order = self._order[trial.config[GROUP]]
        return self._halving[trial.config[GROUP]][order[(trial.config[TRIAL] - 1) % len(order)]]
