"""Sources of the configurations of a search, one per group: planned, or proposed by Optuna. Imports no Ray.

A source begins with the prompt's own configuration and the best ones of earlier searches. After a restart it first
repeats the configurations of the journal, then proposes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import optuna

from corrector.prompts import FailingPrompt, SearchSettings
from corrector.prompts.search_settings import HIGH, WHOLE, Choices, Configuration, Dimension, Target
from corrector.prompts.search_space import contains, dimensions, draw, grid, highest, own_configuration

Figures = Mapping[str, float]
"""A trial's last score and its parts, by name; the targets of a search are among them."""


class Proposals(Protocol):
    """The configurations of one group's trials, in their order."""

    def next(self) -> tuple[int, Configuration] | None:
        """Index and configuration of the next trial; None when none is left."""

    def tell(self, index: int, figures: Figures | None) -> None:
        """Learn from the figures of trial `index`; None where it failed."""


class Planned:
    """Configurations that do not depend on scores."""

    def __init__(self, configurations: Sequence[Configuration]) -> None:
        self._left = list(enumerate(configurations))[::-1]

    def next(self) -> tuple[int, Configuration] | None:
        return self._left.pop() if self._left else None

    def tell(self, index: int, figures: Figures | None) -> None:
        """Nothing to do."""


class Parzen:
    """Proposals of Optuna's tree-structured Parzen estimator."""

    def __init__(
        self,
        space: Mapping[str, Dimension],
        first: Sequence[Configuration],
        count: int,
        seed: int,
        targets: Sequence[Target] = ("score",),
    ) -> None:
        """`first`: configurations of the first trials; `count`: maximum of all trials."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._targets = targets
        self._space = space
        self._first = list(first)
        self._count = count
        self._given = 0
        self._asked: dict[int, optuna.Trial] = {}
        self._distributions = {key: _distribution(key, each) for key, each in space.items()}
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            directions=["maximize" if target == HIGH else "minimize" for target in targets],
        )

    def next(self) -> tuple[int, Configuration] | None:
        """The next of `first`, then the estimator's proposals."""
        if self._given == self._count:
            return None
        index = self._given
        self._given += 1
        if index < len(self._first):
            return index, self._first[index]
        self._asked[index] = self._study.ask(self._distributions)
        return index, {
            key: float(f"{value:.3g}") if isinstance(value, float) else value
            for key, value in self._asked[index].params.items()
        }

    def tell(self, index: int, figures: Figures | None) -> None:
        """Add the figures to the estimator's study, if the configuration is inside its space."""
        values = None if figures is None else [figures[target] for target in self._targets]
        if index in self._asked:
            state = optuna.trial.TrialState.FAIL if values is None else None
            self._study.tell(self._asked.pop(index), values, state=state)
        elif values is not None and contains(self._space, self._first[index]):
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=self._first[index], distributions=self._distributions, values=values
                )
            )


def max_trials(search: SearchSettings, entry: FailingPrompt) -> int:
    """Maximum of a prompt's trials, within the budget of steps if there is one.

    With a grid it is one more than the budget, since the prompt's own configuration is tried in addition.
    """
    return _budget(search, entry) + (search.sampler == "grid")


def _budget(search: SearchSettings, entry: FailingPrompt) -> int:
    steps = round(highest(dimensions(search.space, entry), "steps", entry.hyperparameters.steps))
    return search.trials if search.max_steps is None else min(search.trials, search.max_steps // steps)


def proposals(
    search: SearchSettings,
    entry: FailingPrompt,
    *,
    recorded: Sequence[Configuration] = (),
    known_good: Sequence[Configuration] = (),
) -> Proposals:
    """The source of the trials of `entry`.

    Args:
        recorded: The configurations of the first trials, from the journal of a search that was interrupted.
        known_good: The best configurations of earlier searches, best first; those outside the space are left out.
    """
    space = dimensions(search.space, entry)
    count = _budget(search, entry)
    own = own_configuration(space, entry)
    first = list(recorded)
    for each in (own, *(each for each in known_good if contains(space, each))):
        if each not in first and len(first) < count:  # an interrupted search may not have come to it
            first.append(each)
    if search.sampler == "tpe":
        return Parzen(space, first, count, search.seed, search.targets)
    drawn = (
        grid(space)
        if search.sampler == "grid"
        else draw(space, count, search.seed, evenly=search.sampler == "sobol")
    )
    further = [each for each in drawn if each not in first]
    return Planned([*first, *further][: max_trials(search, entry)])


def _distribution(key: str, dimension: Dimension) -> optuna.distributions.BaseDistribution:
    if isinstance(dimension, Choices):
        return optuna.distributions.CategoricalDistribution(dimension.values)
    if key in WHOLE:
        return optuna.distributions.IntDistribution(round(dimension.low), round(dimension.high), log=True)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=True)
