"""The search on Ray Tune: trials are proposed prompt by prompt, stopped early among those of their own prompt, and light.

Tune decides; what a trial does happens in a lane (`jobs.trial_lane`), and what became of it stands in its journal
(`jobs.trials`). Hence nothing of Tune's own state is needed to go on with a search: every trial reports again what its journal
holds, which takes no training, and decisions that were taken stay.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from corrector.prompts import SearchSettings
from jobs.proposals import Proposals
from jobs.trial_function import PROMPT, TRIAL, run_trial
from jobs.trial_queue import DECIDED
from jobs.trials import OWN, PromptPlan

METRIC, TIME = "score", "steps"
"""What trials are compared by, and at the same point of what."""
TRIAL_BYTES = 200 * 2**20
"""What a trial's process takes; it asks for this and for no CPU, which the lanes have."""
RETRIES = 3
"""How often a trial is begun again whose process was lost, as with its node; its lane need not know."""


class PromptSearch(Searcher):
    """Proposes the trials of all prompts in turn, so that packs are full to the end."""

    def __init__(self, sources: Mapping[str, Proposals], plans: Mapping[str, PromptPlan]) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._plans = plans
        self._sources = dict(sources)
        self._turns = list(sources)
        self._proposed: dict[str, tuple[str, int]] = {}
        self.halted = False
        """Set where the job is to end: nothing more is proposed."""

    def suggest(self, trial_id: str) -> Any:
        """The next trial of the prompt whose turn it is."""
        while self._turns and not self.halted:
            prompt = self._turns.pop(0)
            proposed = self._sources[prompt].next()
            if proposed is None:
                continue
            self._turns.append(prompt)
            index, configuration = proposed
            self._proposed[trial_id] = (prompt, index)
            self._plans[prompt].trial_folder(index).begin(configuration)
            return {PROMPT: prompt, TRIAL: index, **configuration}
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Let the prompt's source know."""
        prompt, index = self._proposed.pop(trial_id)
        score = None if error or result is None else result.get(METRIC)
        self._sources[prompt].tell(index, score)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: sources are made again from the journals."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


class PromptHalving(FIFOScheduler):
    """ASHA for each prompt by itself: distances to different exemplars cannot be compared.

    The prompt's own configuration goes on whatever it scores, and does not count among those that a trial is measured by: what
    everything beats would let everything pass.
    """

    def __init__(self, search: SearchSettings, plans: Mapping[str, PromptPlan]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Ray has not annotated it
        self._kept = FIFOScheduler()
        self._halving = {
            name: ASHAScheduler(
                time_attr=TIME,
                metric=METRIC,
                mode="min",
                max_t=plan.rungs[-1].steps,
                grace_period=plan.rungs[0].steps,
                reduction_factor=search.reduction_factor,
            )
            for name, plan in plans.items()
        }

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take a trial into its prompt's brackets."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop what is not among the best of its rung."""
        decision: str = self._of(trial).on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result.get(DECIDED) else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let its brackets know."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Let its brackets know."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Any) -> FIFOScheduler:
        return self._kept if trial.config[TRIAL] == OWN else self._halving[trial.config[PROMPT]]


class SlotRelease(Callback):
    """Frees the slot of a trial that Tune has done with."""

    def __init__(self, queue: Any, plans: Mapping[str, PromptPlan]) -> None:
        self._queue = queue
        self._plans = plans

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close it in the queue; one that came to its end is closed already."""
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The same for one whose process could not be kept alive."""
        self._close(trial)

    def _close(self, trial: Any) -> None:
        plan = self._plans[trial.config[PROMPT]]
        self._queue.close.remote(plan.trial_id(trial.config[TRIAL]))


def make_tuner(
    queue: Any,
    plans: Mapping[str, PromptPlan],
    proposed: PromptSearch,
    search: SearchSettings,
    *,
    trials: int,
    concurrent: int,
    storage: Path,
    name: str,
) -> tune.Tuner:
    """The search, ready to `fit`.

    Args:
        queue: The actor of the search's `TrialQueue`.
        trials: Of all prompts together, at most.
        concurrent: How many fit into the lanes' slots; more would wait there, and Tune would take them for running.
        name: Of the experiment's folder under `storage`; a new one for each submission.
    """
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, queue=queue), {"cpu": 0, "memory": TRIAL_BYTES}
    )
    # Else Tune prints tables of its own even when it is to be silent, and is lost by a trial that ends without a score.
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}
    halving = search.scheduler == "asha" and any(len(plan.rungs) > 1 for plan in plans.values())
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=proposed,
            scheduler=PromptHalving(search, plans) if halving else FIFOScheduler(),
            num_samples=trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=_folder_name,
            trial_name_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            callbacks=[SlotRelease(queue, plans)],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _folder_name(trial: Any) -> str:
    return f"{trial.config[PROMPT]}-{trial.config[TRIAL]:03d}"
