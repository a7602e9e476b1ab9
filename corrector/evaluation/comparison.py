"""Comparison: the texts and seeds of the images that base and corrected model draw for one prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from corrector.evaluation.negatives import likely_negatives
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.prompts.hyperparameters import MAX_SEED
from corrector.prompts.variations import Difference

if TYPE_CHECKING:
    from torch import Tensor

    from corrector.evaluation.false_routes import HardNegativeImages
    from corrector.evaluation.guards import GuardImages

Row = tuple[str, int]
"""A text and the seed of its noise."""


class GuardSamples(BaseModel):
    """One guard prompt and the seeds of its images, in their order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    seeds: tuple[int, ...]


class NegativeSamples(GuardSamples):
    """One hard negative, the seeds of its images, and how it differs from the corrected prompt."""

    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """Texts and seeds of the images that both models draw for one prompt; row i of both has the same text and seed.

    The order is: the prompt's own images, then those of each guard prompt, then those of each hard negative. Each has the same
    seeds as the others of its kind, so that prompts that share a guard share the base's images of it; the seeds of one kind
    are the first of the other's.
    """

    own: tuple[Row, ...]
    """Prompt and paraphrases in turn."""
    guards: tuple[GuardSamples, ...] = ()
    negatives: tuple[NegativeSamples, ...] = ()

    @classmethod
    def of(cls, entry: FailingPrompt, settings: EvaluationSettings) -> Comparison:
        """The comparison that ``settings`` ask for; the prompt's own seeds count up from ``settings.seed``."""
        own = own_rows((entry.prompt, *entry.paraphrases), settings)
        guard_seeds = _seeds(settings, settings.images, settings.guard_images)
        guards = [GuardSamples(prompt=prompt, seeds=guard_seeds) for prompt in entry.guard_prompts]
        negative_seeds = _seeds(settings, settings.images, settings.hard_negative_images)
        negatives = [
            NegativeSamples(prompt=negative.text, seeds=negative_seeds, difference=negative.difference)
            for negative in likely_negatives(entry, settings.hard_negatives)
        ]
        return cls(own, tuple(guards), tuple(negatives))

    def part(self, own: int, *, guards: Collection[str] = (), negatives: Collection[str] = ()) -> Comparison:
        """The first `own` rows of the prompt itself, and the guard prompts and hard negatives that are named."""
        return Comparison(
            self.own[:own],
            tuple(guard for guard in self.guards if guard.prompt in guards),
            tuple(negative for negative in self.negatives if negative.prompt in negatives),
        )

    def __len__(self) -> int:
        """Images of each side."""
        return len(self.own) + sum(len(samples.seeds) for samples in self._neighbours)

    @property
    def rows(self) -> list[Row]:
        """Text and seed of every image of one side."""
        neighbours = ((samples.prompt, seed) for samples in self._neighbours for seed in samples.seeds)
        return [*self.own, *neighbours]

    def split(self, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """One side's images ``[N, 3, H, W]`` as the prompt's own, each guard prompt's and each hard negative's."""
        sizes = [len(self.own), *(len(samples.seeds) for samples in self._neighbours)]
        own, *neighbours = images.split(sizes)
        return own, neighbours[: len(self.guards)], neighbours[len(self.guards) :]

    def guard_images(self, base: Tensor, corrected: Tensor) -> list[GuardImages]:
        """Images of the guard prompts, for ``score``, out of both sides' images ``[N, 3, H, W]``."""
        from corrector.evaluation.guards import GuardImages

        pairs = zip(self.guards, self.split(base)[1], self.split(corrected)[1], strict=True)
        return [GuardImages(samples.prompt, before, after) for samples, before, after in pairs]

    def negative_images(self, base: Tensor, corrected: Tensor) -> list[HardNegativeImages]:
        """Images of the hard negatives, for ``score``, out of both sides' images ``[N, 3, H, W]``."""
        from corrector.evaluation.false_routes import HardNegativeImages

        pairs = zip(self.negatives, self.split(base)[2], self.split(corrected)[2], strict=True)
        return [
            HardNegativeImages(samples.prompt, before, after, samples.difference)
            for samples, before, after in pairs
        ]

    @property
    def _neighbours(self) -> tuple[GuardSamples, ...]:
        return (*self.guards, *self.negatives)


def own_rows(wordings: Sequence[str], settings: EvaluationSettings) -> tuple[Row, ...]:
    """The rows of a prompt's own images: its wordings in turn, and seeds that count up from ``settings.seed``."""
    return tuple(
        (wordings[index % len(wordings)], _seed(settings, index)) for index in range(settings.images)
    )


def _seeds(settings: EvaluationSettings, start: int, count: int) -> tuple[int, ...]:
    return tuple(_seed(settings, start + index) for index in range(count))


def _seed(settings: EvaluationSettings, offset: int) -> int:
    return (settings.seed + offset) % (MAX_SEED + 1)
