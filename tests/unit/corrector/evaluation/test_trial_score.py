"""What a search minimises ranks trials as it should, and its choice is not fooled by the luckiest of equals."""

import statistics

import pytest
import torch
from torch import Tensor

from corrector.evaluation.distances import frechet_distance
from corrector.evaluation.trial_score import (
    Choice,
    Contender,
    ExemplarFeatures,
    SampleFeatures,
    TrialScore,
    choose,
    trial_score,
)
from corrector.prompts import EvaluationSettings, GateThresholds, SearchSettings

WIDTH = 64
EVALUATION = EvaluationSettings(bootstrap=200, permutations=199)
GATE = GateThresholds()


def features(count: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> Tensor:
    """Features of images that lie `shift` away from the exemplars in every direction."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)) * spread + shift


def arm(count: int, seed: int, shift: float, *, spread: float = 1.0, guards: float = 5.0) -> SampleFeatures:
    """One arm with one guard prompt, whose images lie at `guards`."""
    return SampleFeatures(features(count, seed, shift, spread), (features(8, 99, guards),))


EXEMPLARS = ExemplarFeatures(features(12, seed=1), features(12, seed=2))
BASE = arm(16, seed=3, shift=2.0)


def scored(trial: SampleFeatures, base: SampleFeatures = BASE, **search: object) -> TrialScore:
    return trial_score(base, trial, EXEMPLARS, SearchSettings.model_validate(search), GATE)


def contender(trial: str, arm: SampleFeatures, base: SampleFeatures = BASE) -> Contender:
    return Contender(trial, (scored(arm, base),), (arm,))


def chosen(own: SampleFeatures, *others: SampleFeatures, objective: str = "fid") -> Choice:
    names = [contender(str(number), each) for number, each in enumerate(others, start=1)]
    search = SearchSettings.model_validate({"objective": objective})
    return choose(contender("0", own), names, [EXEMPLARS.held_out], search.objective, EVALUATION)


@pytest.mark.parametrize("objective", ["fid", "kid"])
def test_a_trial_like_the_base_scores_one_and_nearer_ones_score_lower(objective: str) -> None:
    far, near = (arm(16, seed=3, shift=shift) for shift in (1.0, 0.2))

    assert scored(BASE, objective=objective).score == pytest.approx(1.0)
    assert scored(near, objective=objective).score < scored(far, objective=objective).score < 1.0


def test_damage_to_neighbours_and_lost_diversity_are_charged() -> None:
    clean = scored(arm(16, seed=3, shift=0.5))
    harmful = scored(arm(16, seed=3, shift=0.5, guards=0.5))
    collapsed = scored(arm(16, seed=3, shift=0.5, spread=0.2))

    assert (clean.damage, clean.score) == (0.0, clean.distance)
    assert harmful.damage == pytest.approx(1.0)
    assert harmful.score == pytest.approx(harmful.distance + 1.0)
    assert collapsed.diversity == pytest.approx(0.2)
    assert collapsed.score == pytest.approx(collapsed.distance + GATE.min_diversity - 0.2)
    assert scored(arm(16, seed=3, shift=0.5, guards=0.5), damage_weight=0).score == harmful.distance


def test_a_trial_whose_images_are_not_numbers_has_no_score() -> None:
    broken = arm(16, seed=3, shift=float("nan"))

    with pytest.raises(ValueError, match="not finite"):
        scored(broken)


def test_equal_trials_on_the_same_seeds_score_the_same_to_the_bit() -> None:
    scores = {scored(arm(10, seed=7, shift=0.5), arm(10, seed=3, shift=2.0)).score for _ in range(10)}

    assert len(scores) == 1


def test_ten_identical_configurations_yield_no_winner() -> None:
    """Ten trials that differ by luck alone: the lowest looks better than it is, and is not named best."""
    truth = statistics.mean(
        frechet_distance(features(10, seed, shift=0.5), EXEMPLARS.held_out) for seed in range(5_000, 5_200)
    )
    flattery, winners = [], []
    for repeat in range(40):
        seeds = range(1000 + 20 * repeat, 1010 + 20 * repeat)
        searched = sorted(
            seeds, key=lambda seed: frechet_distance(features(10, seed, shift=0.5), EXEMPLARS.held_out)
        )
        flattery.append(truth - frechet_distance(features(10, searched[0], shift=0.5), EXEMPLARS.held_out))
        fresh = [
            SampleFeatures(features(16, 100_000 + seed, shift=0.5), ()) for seed in (seeds[0], *searched[:3])
        ]
        base = SampleFeatures(BASE.own, ())
        own, *others = [contender(str(n), each, base) for n, each in enumerate(fresh)]
        winners.append(choose(own, others, [EXEMPLARS.held_out], "fid", EVALUATION).trial != "0")

    assert statistics.mean(flattery) > 0.04 * truth
    assert sum(winners) <= 4


@pytest.mark.parametrize("objective", ["fid", "kid"])
def test_a_configuration_that_is_better_is_named_best(objective: str) -> None:
    choice = chosen(arm(16, 3, 1.0), arm(16, 4, 0.9), arm(16, 5, 0.2), arm(16, 6, 0.5), objective=objective)

    assert choice.trial == "2"
    assert choice.interval is not None
    assert choice.interval[1] < 0
    assert "best on fresh seeds" in choice.reason


def test_what_the_prompt_had_stays_where_nothing_scores_lower() -> None:
    choice = chosen(arm(16, 3, 0.2), arm(16, 4, 0.9))

    assert (choice.trial, choice.difference) == ("0", 0.0)


def test_prompts_that_are_searched_as_a_whole_have_one_choice_by_their_mean() -> None:
    """Trial 1 is best for the first prompt and harms the second; trial 2 helps both."""

    def together(trial: str, first: float, second: float, seed: int) -> Contender:
        arms = arm(16, seed, first), arm(16, seed + 50, second)
        return Contender(trial, tuple(map(scored, arms)), arms)

    own = together("0", 1.0, 1.0, seed=3)
    others = [together("1", 0.1, 2.0, seed=4), together("2", 0.6, 0.6, seed=5)]
    held_out = [EXEMPLARS.held_out, EXEMPLARS.held_out]

    choice = choose(own, others, held_out, "fid", EVALUATION)

    assert choice.trial == "2"
    assert choice.difference == pytest.approx(
        statistics.mean(
            frechet_distance(after.own, EXEMPLARS.held_out) - frechet_distance(before.own, EXEMPLARS.held_out)
            for before, after in zip(own.features, others[1].features, strict=True)
        )
    )
    assert "the mean over 2 prompts" in choice.reason
