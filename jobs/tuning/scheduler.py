"""The search on Ray Tune: trials are proposed group by group, stopped early among those of their own group, and light.

A group is one prompt, or all of a batch that is searched as a whole.

Tune decides; what a trial does happens in a lane (`jobs.tuning.lane`), and what became of it stands in its journal
(`jobs.tuning.trials`). Nothing of Tune's own state is needed to go on with a search: every trial reports again what its
journal holds, which takes no training, and decisions that were taken stay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from corrector.prompts import SearchSettings
from corrector.prompts.search import Configuration
from jobs.tuning.proposals import Proposals
from jobs.tuning.queue import DECIDED
from jobs.tuning.trainable import GROUP, TRIAL, run_trial
from jobs.tuning.trials import OWN, TrialGroup

METRIC, TIME = "score", "steps"
"""What trials are compared by, and at the same point of what."""
TRIAL_BYTES = 200 * 2**20
"""What a trial's process takes; it asks for this and for no CPU, which the lanes have."""
RETRIES = 3
"""How often a trial is begun again whose process was lost, as with its node; its lane need not know."""


class GroupSearch(Searcher):
    """Proposes the trials of all groups in turn, so that packs are full to the end."""

    def __init__(
        self,
        sources: Mapping[str, Proposals],
        groups: Mapping[str, TrialGroup],
        trials: int,
        *,
        opened: Callable[[str, int, Configuration], object],
    ) -> None:
        """`trials` are proposed at most, of all groups together; `opened` is called with each at once.

        So lanes can begin with it before there is a process of Tune's for it, which takes seconds.
        """
        super().__init__(metric=METRIC, mode="min")
        self.trials = trials
        self._opened = opened
        self._groups = groups
        self._left = trials
        self._given = 0
        self._sources = dict(sources)
        self._turns = list(sources)
        self._proposed: dict[str, tuple[str, int]] = {}
        self.halted = False
        """Set where the job is to end: nothing more is proposed."""

    @property
    def final_count(self) -> int | None:
        """How many trials there are, once no further will be proposed; None before."""
        return None if self._left and self._turns else self._given

    def suggest(self, trial_id: str) -> Any:
        """The next trial of the group whose turn it is."""
        while self._turns and not self.halted:
            group = self._turns[0]
            proposed = self._sources[group].next()
            if proposed is None:
                self._turns.remove(group)
                continue
            self._turns.append(self._turns.pop(0))
            index, configuration = proposed
            self._proposed[trial_id] = (group, index)
            self._groups[group].begin(index, configuration)
            self._opened(group, index, configuration)
            self._given += 1
            self._left -= 1
            return {GROUP: group, TRIAL: index, **configuration}
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Let the group's source know."""
        group, index = self._proposed.pop(trial_id)
        scored = not error and result is not None and METRIC in result
        self._sources[group].tell(index, result if scored else None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: sources are made again from the journals."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


def brackets(count: int, factor: int) -> list[int]:
    """The brackets of HyperBand in the order in which trials are given to them, to be repeated.

    Bracket s spares its trials the first s of `count` rungs. As many are given to each as in Li et al. 2018 (Hyperband: A
    Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR): with r rungs left, ceil(count / r * factor^(r - 1)).
    """
    shares = [-(-count * factor ** (left - 1) // left) for left in range(count, 0, -1)]
    # Spread evenly: whichever is farthest behind its share is next.
    given = [0] * count
    order = []
    for _ in range(sum(shares)):
        bracket = min(range(count), key=lambda each: (given[each] + 1) / shares[each])
        given[bracket] += 1
        order.append(bracket)
    return order


class GroupHalving(FIFOScheduler):
    """ASHA or HyperBand for each group by itself: distances to different exemplars cannot be compared.

    HyperBand is asynchronous, too: each of its brackets is an ASHA that begins at a later rung. The prompt's own configuration
    goes on whatever it scores, and does not count among those that a trial is measured by: what everything beats would let
    everything pass.
    """

    def __init__(self, search: SearchSettings, groups: Mapping[str, TrialGroup]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Ray has not annotated it
        self._kept = FIFOScheduler()
        self._halving = {
            name: [
                ASHAScheduler(
                    time_attr=TIME,
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
        """Take a trial into its bracket."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop what is not among the best of its rung."""
        decision: str = self._of(trial).on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result.get(DECIDED) else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let its bracket know."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Let its bracket know."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Any) -> FIFOScheduler:
        if trial.config[TRIAL] == OWN:
            return self._kept
        order = self._order[trial.config[GROUP]]
        return self._halving[trial.config[GROUP]][order[(trial.config[TRIAL] - 1) % len(order)]]


class SlotRelease(Callback):
    """Frees the slots of a trial that Tune has done with."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.released = 0
        """Trials that Tune has done with."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close it in the queue; one that came to its end is closed already."""
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The same for one whose process could not be kept alive."""
        self._close(trial)

    def _close(self, trial: Any) -> None:
        self._queue.close.remote(trial.config[GROUP], trial.config[TRIAL])
        self.released += 1


def make_tuner(
    queue: Any,
    groups: Mapping[str, TrialGroup],
    proposed: GroupSearch,
    release: SlotRelease,
    search: SearchSettings,
    *,
    concurrent: int,
    storage: Path,
    name: str,
) -> tune.Tuner:
    """The search, ready to `fit`.

    Args:
        queue: The actor of the search's `TrialQueue`.
        concurrent: How many fit into the lanes' slots; more would wait there, and Tune would take them for running.
        name: Of the experiment's folder under `storage`; a new one for each submission.
    """
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, queue=queue), {"cpu": 0, "memory": TRIAL_BYTES}
    )
    # Else Tune prints tables of its own even when it is to be silent, is lost by a trial that ends without a score, and keeps
    # three logs of every trial, of which it reads one.
    os.environ |= {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }
    halving = search.scheduler != "none" and any(len(group.rungs) > 1 for group in groups.values())
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=proposed,
            scheduler=GroupHalving(search, groups) if halving else FIFOScheduler(),
            num_samples=proposed.trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=_folder_name,
            trial_name_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            callbacks=[release, JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _folder_name(trial: Any) -> str:
    return f"{trial.config[GROUP]}-{trial.config[TRIAL]:03d}"
