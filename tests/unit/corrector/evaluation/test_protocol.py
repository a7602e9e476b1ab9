"""Base and corrected are sampled on the same rows."""

import pytest
import torch

from corrector.evaluation import evaluation_rows, grouped_guards, guard_rows, negative_seeds
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.prompts.hyperparameters import MAX_SEED

ENTRY = FailingPrompt(
    prompt="a person lying on the grass",
    exemplars="exemplars",
    paraphrases=("someone lying on the lawn", "a human lying on a meadow"),
    guard_prompts=("a person sitting on the grass", "a dog on the grass"),
)


def test_the_images_are_spread_over_the_wordings_with_a_seed_each() -> None:
    rows = evaluation_rows(ENTRY, EvaluationSettings(images=32, seed=1000))

    prompts = [prompt for prompt, _ in rows]
    assert len(rows) == 32
    assert [prompts.count(p) for p in dict.fromkeys(prompts)] == [11, 11, 10]
    assert prompts[0] == ENTRY.prompt
    assert [seed for _, seed in rows] == list(range(1000, 1032))


def test_every_guard_prompt_gets_its_images_and_no_seed_twice() -> None:
    settings = EvaluationSettings(images=20, guard_images=3, seed=7)

    rows = guard_rows(ENTRY, settings)

    assert [prompt for prompt, _ in rows] == [ENTRY.guard_prompts[0]] * 3 + [ENTRY.guard_prompts[1]] * 3
    seeds = [seed for _, seed in (*evaluation_rows(ENTRY, settings), *rows)]
    assert len(set(seeds)) == len(seeds) == 26


def test_hard_negatives_get_images_with_seeds_of_their_own() -> None:
    settings = EvaluationSettings(images=20, guard_images=3, hard_negatives=3, hard_negative_images=2, seed=7)

    found = negative_seeds(ENTRY, settings)

    assert len({negative.text for negative, _ in found}) == 3
    assert [len(seeds) for _, seeds in found] == [2, 2, 2]
    seeds = [seed for _, seed in (*evaluation_rows(ENTRY, settings), *guard_rows(ENTRY, settings))]
    seeds += [seed for _, own in found for seed in own]
    assert sorted(seeds) == list(range(7, 7 + 20 + 6 + 6))


def test_hard_negatives_can_be_switched_off() -> None:
    assert negative_seeds(ENTRY, EvaluationSettings(hard_negatives=0)) == []


def test_seeds_stay_in_range() -> None:
    rows = evaluation_rows(ENTRY, EvaluationSettings(images=4, seed=MAX_SEED - 1))

    assert [seed for _, seed in rows] == [MAX_SEED - 1, MAX_SEED, 0, 1]


def test_sampled_guards_come_back_by_prompt() -> None:
    rows = guard_rows(ENTRY, EvaluationSettings(guard_images=2))
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)

    first, second = grouped_guards(rows, images, images + 10)

    assert (first.prompt, second.prompt) == ENTRY.guard_prompts
    assert first.base[:, 0, 0, 0].tolist() == [0, 1]
    assert second.corrected[:, 0, 0, 0].tolist() == [12, 13]
    with pytest.raises(ValueError, match="4 guard rows, 3 base and 4 corrected"):
        grouped_guards(rows, images[:3], images)
