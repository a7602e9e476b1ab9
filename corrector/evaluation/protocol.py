"""Which images a scorecard needs: the rows to sample, the same for base and corrected."""

from collections.abc import Sequence

from torch import Tensor

from corrector.evaluation.guards import GuardImages
from corrector.evaluation.negatives import likely_negatives
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.prompts.hyperparameters import MAX_SEED
from corrector.prompts.variations import HardNegative

Row = tuple[str, int]
"""A prompt and the seed of its noise."""


def evaluation_rows(entry: FailingPrompt, settings: EvaluationSettings) -> list[Row]:
    """The `settings.images` rows of each arm: prompt and paraphrases in turn, every row with its own seed."""
    wordings = (entry.prompt, *entry.paraphrases)
    return [(wordings[i % len(wordings)], _seed(settings, i)) for i in range(settings.images)]


def guard_rows(entry: FailingPrompt, settings: EvaluationSettings) -> list[Row]:
    """`settings.guard_images` rows of every guard prompt in turn, with the seeds after `evaluation_rows`'."""
    prompts = entry.guard_prompts
    seeds = iter(range(settings.images, settings.images + len(prompts) * settings.guard_images))
    return [
        (prompt, _seed(settings, next(seeds))) for prompt in prompts for _ in range(settings.guard_images)
    ]


def negative_seeds(
    entry: FailingPrompt, settings: EvaluationSettings
) -> list[tuple[HardNegative, tuple[int, ...]]]:
    """`likely_negatives` and the seeds of their `settings.hard_negative_images` images, which follow `guard_rows`'."""
    each = settings.hard_negative_images
    first = settings.images + len(entry.guard_prompts) * settings.guard_images
    return [
        (negative, tuple(_seed(settings, first + index * each + image) for image in range(each)))
        for index, negative in enumerate(likely_negatives(entry, settings.hard_negatives))
    ]


def grouped_guards(rows: Sequence[Row], base: Tensor, corrected: Tensor) -> list[GuardImages]:
    """The images `[N, 3, H, W]` that were sampled for `rows` (N of them), by guard prompt.

    Raises:
        ValueError: The arms do not have one image for each row.
    """
    if not len(rows) == len(base) == len(corrected):
        raise ValueError(f"{len(rows)} guard rows, {len(base)} base and {len(corrected)} corrected images")
    found = []
    for prompt in dict.fromkeys(prompt for prompt, _ in rows):
        own = [index for index, row in enumerate(rows) if row[0] == prompt]
        found.append(GuardImages(prompt, base[own], corrected[own]))
    return found


def _seed(settings: EvaluationSettings, offset: int) -> int:
    return (settings.seed + offset) % (MAX_SEED + 1)
