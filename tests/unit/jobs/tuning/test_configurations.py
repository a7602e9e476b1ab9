"""Trials are proposed in an order that a search which goes on finds again."""

from __future__ import annotations

import pytest

from corrector.prompts import FailingPrompt, HyperParameters, SearchSettings
from corrector.prompts.search_settings import Choices, Configuration, Range
from jobs.tuning.configurations import Proposals, max_trials, proposals

ENTRY = FailingPrompt(
    prompt="a",
    exemplars="exemplars",
    guard_prompts=("b",),
    hyperparameters=HyperParameters(rank=8, learning_rate=2e-3, steps=100),
)
SPACE = {"rank": Choices(values=(4, 8, 16)), "learning_rate": Range(low=1e-4, high=1e-2)}
OWN: Configuration = {"rank": 8, "learning_rate": 2e-3}


def search(**values: object) -> SearchSettings:
    return SearchSettings.model_validate({"trials": 6, "space": SPACE} | values)


def everything(source: Proposals, *, best_rate: float = 1e-3) -> list[Configuration]:
    """All that a source proposes when the best learning rate is `best_rate`."""
    found: list[Configuration] = []
    while (proposed := source.next()) is not None:
        index, configuration = proposed
        assert index == len(found)
        found.append(configuration)
        rate = configuration["learning_rate"]
        assert isinstance(rate, float)
        source.tell(index, {"score": abs(rate - best_rate) / best_rate, "diversity": rate})
    return found


@pytest.mark.parametrize("sampler", ["sobol", "random", "tpe"])
def test_the_prompts_own_configuration_comes_first_and_trials_are_as_many_as_asked(sampler: str) -> None:
    found = everything(proposals(search(sampler=sampler), ENTRY))

    assert found[0] == OWN
    assert len(found) == 6
    assert found == everything(proposals(search(sampler=sampler), ENTRY))


@pytest.mark.parametrize("sampler", ["sobol", "random", "tpe"])
def test_what_a_journal_holds_is_proposed_again_before_anything_new(sampler: str) -> None:
    before = everything(proposals(search(sampler=sampler, trials=4), ENTRY))
    after = everything(proposals(search(sampler=sampler), ENTRY, recorded=before))

    assert after[:4] == before
    assert len(after) == 6


def test_what_earlier_searches_found_best_comes_second_if_it_lies_in_the_space() -> None:
    known: list[Configuration] = [
        {"rank": 4, "learning_rate": 5e-3},
        {"rank": 64, "learning_rate": 5e-3},
        OWN,
    ]
    found = everything(proposals(search(), ENTRY, known_good=known))

    assert found[:2] == [OWN, known[0]]
    assert known[1] not in found
    resumed = everything(proposals(search(), ENTRY, recorded=found[:1], known_good=known))
    assert resumed[:2] == found[:2]


def test_several_targets_spread_over_their_compromises() -> None:
    """Near 1e-3 the score is lowest, at 1e-2 the diversity highest: whoever aims at both tries more between them."""
    one = everything(proposals(search(sampler="tpe", trials=60), ENTRY))
    both = everything(proposals(search(sampler="tpe", trials=60, targets=("score", "diversity")), ENTRY))

    def high(found: list[Configuration]) -> int:
        return sum(float(each["learning_rate"] or 0) > 4e-3 for each in found[30:])

    assert high(both) > high(one) + 5


def test_a_grid_holds_every_point_and_the_prompts_own_configuration() -> None:
    space = {"rank": Choices(values=(4, 16)), "learning_rate": Choices(values=(1e-3, 4e-3))}
    found = everything(proposals(search(sampler="grid", trials=4, space=space), ENTRY))

    assert found[0] == OWN
    assert len(found) == 5


def test_a_budget_of_steps_bounds_the_trials() -> None:
    assert max_trials(search(max_steps=350), ENTRY) == 3
    assert len(everything(proposals(search(max_steps=350), ENTRY))) == 3


def test_the_estimator_learns_where_scores_are_low() -> None:
    found = everything(proposals(search(sampler="tpe", trials=60), ENTRY), best_rate=1e-3)
    late = [float(str(each["learning_rate"])) for each in found[40:]]

    assert sum(4e-4 < rate < 2.5e-3 for rate in late) > 12


def test_a_failed_trial_teaches_nothing_and_stops_nothing() -> None:
    source = proposals(search(sampler="tpe"), ENTRY)
    indices = []
    while (proposed := source.next()) is not None:
        indices.append(proposed[0])
        source.tell(proposed[0], None)

    assert indices == list(range(6))
