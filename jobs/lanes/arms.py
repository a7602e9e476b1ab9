"""The two arms of a comparison: which rows are sampled for a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from corrector.base import BaseSpec, TextEmbeddings
from corrector.evaluation import evaluation_rows, guard_rows, negative_seeds
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.record.correction import NegativeSamples
from corrector.sampling import SampleRow
from jobs.inputs.preparation import NEGATIVE_PROMPT


@dataclass(frozen=True)
class Arms:
    """What is sampled of one prompt: `rows` of one arm, first the prompt's own, then guard prompt after guard prompt, then
    hard negative after hard negative.

    Attributes:
        own: (prompt or paraphrase, seed) of the prompt's own rows.
        guards: Each guard prompt and its seeds.
        negatives: Each hard negative and its seeds.
    """

    own: tuple[tuple[str, int], ...]
    guards: tuple[tuple[str, tuple[int, ...]], ...]
    negatives: tuple[NegativeSamples, ...] = ()

    @classmethod
    def of(cls, entry: FailingPrompt, evaluation: EvaluationSettings) -> Arms:
        """The comparison that `evaluation` asks for."""
        seeds: dict[str, list[int]] = {}
        for prompt, seed in guard_rows(entry, evaluation):
            seeds.setdefault(prompt, []).append(seed)
        guards = tuple((prompt, tuple(each)) for prompt, each in seeds.items())
        negatives = tuple(
            NegativeSamples(prompt=negative.text, difference=negative.difference, seeds=each)
            for negative, each in negative_seeds(entry, evaluation)
        )
        return cls(tuple(evaluation_rows(entry, evaluation)), guards, negatives)

    def rows(
        self,
        slot: int,
        spec: BaseSpec,
        evaluation: EvaluationSettings,
        embeddings: Mapping[str, TextEmbeddings],
    ) -> list[SampleRow]:
        """The rows of one arm: `slot` 0 is the base's, any other that adapter's."""
        steps = evaluation.num_inference_steps or spec.num_inference_steps
        guidance = spec.guidance_scale if evaluation.guidance_scale is None else evaluation.guidance_scale
        texts = [*self.own, *((prompt, seed) for prompt, seeds in self._neighbours for seed in seeds)]
        return [
            SampleRow(
                prompt=embeddings[prompt],
                negative=embeddings[NEGATIVE_PROMPT],
                slot=slot,
                seed=seed,
                num_inference_steps=steps,
                guidance_scale=guidance,
            )
            for prompt, seed in texts
        ]

    def __len__(self) -> int:
        return len(self.own) + sum(len(seeds) for _, seeds in self._neighbours)

    def split(self, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """One arm's images [N, 3, H, W] apart: the prompt's own, each guard prompt's, and each hard negative's."""
        own, *neighbours = images.split([len(self.own), *(len(seeds) for _, seeds in self._neighbours)])
        return own, neighbours[: len(self.guards)], neighbours[len(self.guards) :]

    @property
    def _neighbours(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return (*self.guards, *((negative.prompt, negative.seeds) for negative in self.negatives))
