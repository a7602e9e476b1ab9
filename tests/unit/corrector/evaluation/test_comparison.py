"""Base and corrected are sampled on the same rows."""

import pytest
import torch

from corrector.evaluation import Comparison
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.prompts.hyperparameters import MAX_SEED

ENTRY = FailingPrompt(
    prompt="a person lying on the grass",
    exemplars="exemplars",
    paraphrases=("someone lying on the lawn", "a human lying on a meadow"),
    guard_prompts=("a person sitting on the grass", "a dog on the grass"),
)


def test_the_images_are_spread_over_the_wordings_with_a_seed_each() -> None:
    rows = Comparison.of(ENTRY, EvaluationSettings(images=32, seed=1000)).own

    prompts = [prompt for prompt, _ in rows]
    assert len(rows) == 32
    assert [prompts.count(p) for p in dict.fromkeys(prompts)] == [11, 11, 10]
    assert prompts[0] == ENTRY.prompt
    assert [seed for _, seed in rows] == list(range(1000, 1032))


def test_guard_prompts_and_hard_negatives_follow_and_each_kind_shares_its_seeds() -> None:
    settings = EvaluationSettings(images=20, guard_images=3, hard_negatives=3, hard_negative_images=2, seed=7)

    comparison = Comparison.of(ENTRY, settings)

    assert [samples.prompt for samples in comparison.guards] == list(ENTRY.guard_prompts)
    assert [samples.seeds for samples in comparison.guards] == [(27, 28, 29)] * 2
    assert len({samples.prompt for samples in comparison.negatives}) == 3
    assert [samples.seeds for samples in comparison.negatives] == [(27, 28)] * 3
    assert len(set(comparison.rows)) == len(comparison.rows)
    assert len(comparison) == 32


def test_a_part_has_the_first_rows_and_the_neighbours_that_are_asked_for() -> None:
    settings = EvaluationSettings(images=20, guard_images=3, hard_negatives=3, hard_negative_images=2)
    whole = Comparison.of(ENTRY, settings)

    assert whole.part(8).rows == whole.rows[:8]
    assert whole.part(20, guards=ENTRY.guard_prompts[1:]).guards == whole.guards[1:]
    negatives = [negative.prompt for negative in whole.negatives]
    assert whole.part(20, negatives=negatives[1:]).negatives == whole.negatives[1:]
    assert whole.part(20, guards=ENTRY.guard_prompts, negatives=negatives) == whole


def test_prompts_that_share_a_guard_draw_the_same_images_of_it() -> None:
    other = FailingPrompt(prompt="a cat", exemplars="exemplars", guard_prompts=ENTRY.guard_prompts[1:])

    mine, yours = (Comparison.of(entry, EvaluationSettings()) for entry in (ENTRY, other))

    assert mine.guards[1] == yours.guards[0]


def test_hard_negatives_can_be_switched_off() -> None:
    assert Comparison.of(ENTRY, EvaluationSettings(hard_negatives=0)).negatives == ()


def test_seeds_stay_in_range() -> None:
    rows = Comparison.of(ENTRY, EvaluationSettings(images=4, seed=MAX_SEED - 1)).own

    assert [seed for _, seed in rows] == [MAX_SEED - 1, MAX_SEED, 0, 1]


def test_images_come_back_by_prompt() -> None:
    settings = EvaluationSettings(images=2, guard_images=2, hard_negatives=1, hard_negative_images=2)
    comparison = Comparison.of(ENTRY, settings)
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 2, 2)

    own, _, _ = comparison.split(images)
    first, second = comparison.guard_images(images, images + 10)
    (negative,) = comparison.negative_images(images, images + 10)

    assert own[:, 0, 0, 0].tolist() == [0, 1]
    assert (first.prompt, second.prompt) == ENTRY.guard_prompts
    assert first.base[:, 0, 0, 0].tolist() == [2, 3]
    assert second.corrected[:, 0, 0, 0].tolist() == [14, 15]
    assert (negative.prompt, negative.difference) == (
        comparison.negatives[0].prompt,
        comparison.negatives[0].difference,
    )
    assert negative.corrected[:, 0, 0, 0].tolist() == [16, 17]
    with pytest.raises(RuntimeError, match="split_sizes"):
        comparison.split(images[:7])
