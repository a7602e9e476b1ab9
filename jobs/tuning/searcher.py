"""The search with Ray Tune: a searcher that opens and closes trials in the queue, and the tuner that uses it.

Tune decides, lanes train and score trials (`jobs.tuning.lane`), and journals hold the results (`jobs.tuning.trials`). A
resumed search does not need Tune's own state: each trial reports the scores in its journal again, without training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from corrector.prompts import SearchSettings
from corrector.prompts.search_settings import Configuration
from jobs.tuning.configurations import Proposals
from jobs.tuning.plan import SearchGroup
from jobs.tuning.scheduler import GroupHalving
from jobs.tuning.trainable import GROUP, METRIC, TRIAL, run_trial

TRIAL_BYTES = 200 * 2**20
"""Memory of a trial's process. It asks for no CPU: lanes have them."""
RETRIES = 3
"""How often Tune restarts the process of a trial that was lost, as with its node; the trial's lane goes on meanwhile."""


class GroupSearcher(Searcher):
    """Proposes trials of all groups in turn, so that packs stay full, and closes trials that Tune ends."""

    def __init__(
        self,
        sources: Mapping[str, Proposals],
        groups: Mapping[str, SearchGroup],
        trials: int,
        *,
        on_open: Callable[[str, int, Configuration], object],
        on_close: Callable[[str, int], object],
    ) -> None:
        """`trials`: maximum of proposed trials, of all groups together.

        `on_open` is called when a trial is proposed: lanes train it while Tune starts its process, which takes seconds.
        `on_close` is called when Tune has ended a trial, early or not.
        """
        super().__init__(metric=METRIC, mode="min")
        self.trials = trials
        self._on_open = on_open
        self._on_close = on_close
        self._groups = groups
        self._left = trials
        self._sources = dict(sources)
        self._rotation = list(sources)
        self._running: dict[str, tuple[str, int]] = {}
        self.halted = False
        """Set when the job stops: nothing more is proposed."""

    @property
    def is_done(self) -> bool:
        """Whether Tune has ended every trial and no further one will be proposed."""
        return not self._running and not (self._left and self._rotation)

    def suggest(self, trial_id: str) -> Any:
        """The next trial of the next group."""
        while self._rotation and not self.halted:
            group = self._rotation[0]
            proposed = self._sources[group].next()
            if proposed is None:
                self._rotation.remove(group)
                continue
            self._rotation.append(self._rotation.pop(0))
            index, configuration = proposed
            self._running[trial_id] = (group, index)
            self._groups[group].begin(index, configuration)
            self._on_open(group, index, configuration)
            self._left -= 1
            return {GROUP: group, TRIAL: index, **configuration}
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Close the trial in the queue and pass the score to its source."""
        group, index = self._running.pop(trial_id)
        self._on_close(group, index)
        scored = not error and result is not None and METRIC in result
        self._sources[group].tell(index, result if scored else None)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: sources are built again from the journals."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, see `save`."""


def make_tuner(
    queue: Any,
    groups: Mapping[str, SearchGroup],
    searcher: GroupSearcher,
    search: SearchSettings,
    *,
    concurrent: int,
    storage: str,
    name: str,
) -> tune.Tuner:
    """The search, ready to `fit`.

    Args:
        queue: The actor of the search's `TrialQueue`.
        concurrent: Number of trials that fit into the lanes' slots; Tune would count further ones as running while they wait.
        name: Name of the experiment's folder under `storage`; a new one for each submission.
    """
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, queue=queue), {"cpu": 0, "memory": TRIAL_BYTES}
    )
    # By default Tune prints tables even with verbose=0, fails when a trial ends without a score, and writes three logs of
    # every trial, of which it reads one.
    os.environ |= {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }
    halving = search.scheduler != "none" and any(len(group.rungs) > 1 for group in groups.values())
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=GroupHalving(search, groups) if halving else FIFOScheduler(),
            num_samples=searcher.trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=_folder_name,
            trial_name_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage,
            callbacks=[JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _folder_name(trial: Any) -> str:
    return f"{trial.config[GROUP]}-{trial.config[TRIAL]:03d}"
