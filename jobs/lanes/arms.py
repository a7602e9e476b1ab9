"""The two arms of a comparison: which rows are sampled for a prompt, and how they come to lie in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from corrector.adapters import Adapter, save_adapter
from corrector.base import BaseSpec, TextEmbeddings
from corrector.evaluation import evaluation_rows, guard_rows, negative_seeds
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.record.correction import CorrectionRecord, NegativeSamples
from corrector.sampling import SampleRow
from jobs.inputs.preparation import NEGATIVE_PROMPT
from jobs.inputs.run_folder import PromptFolder, remove_folder

SAMPLED_FILE = "sampled.json"
DECODED_FILE = "decoded.safetensors"
"""The exemplars as the base's VAE draws them, which the check for copies compares with."""


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


def write_sampled(
    folder: PromptFolder,
    arms: Arms,
    *,
    adapter: Adapter,
    exemplars: Mapping[str, Tensor],
    decoded: Mapping[str, Tensor],
    before: Tensor,
    after: Tensor,
    curve: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> None:
    """Write what the lane leaves behind: adapter, images and curve; the folder appears whole or not at all."""
    staging = folder.path / f".sampled.{os.getpid()}"
    remove_folder(staging)
    save_adapter(adapter, staging / "adapter")
    own_before, guards_before, negatives_before = arms.split(before)
    own_after, guards_after, negatives_after = arms.split(after)
    CorrectionRecord.write_images(
        staging,
        exemplars=exemplars["training"],
        held_out=exemplars["held_out"],
        before=own_before,
        after=own_after,
        guards=list(zip(guards_before, guards_after, strict=True)),
        negatives=list(zip(negatives_before, negatives_after, strict=True)),
    )
    sampled = {
        "curve": list(curve),
        "seconds": dict(seconds),
        # Not in the batch file: the lexicon of the code that scores may name others than that of the code that sampled.
        "hard_negatives": [negative.model_dump() for negative in arms.negatives],
    }
    (staging / SAMPLED_FILE).write_text(json.dumps(sampled))
    save_file({key: images.contiguous() for key, images in decoded.items()}, staging / DECODED_FILE)
    remove_folder(folder.sampled)
    staging.rename(folder.sampled)
    remove_folder(folder.checkpoint)


def read_sampled(folder: PromptFolder) -> dict[str, Any]:
    """The curve, the seconds and the hard negatives that the lane wrote."""
    sampled: dict[str, Any] = json.loads((folder.sampled / SAMPLED_FILE).read_text())
    sampled["hard_negatives"] = tuple(map(NegativeSamples.model_validate, sampled["hard_negatives"]))
    return sampled


def read_decoded(folder: PromptFolder) -> tuple[Tensor, Tensor]:
    """Training and held-out exemplars [N, 3, H, W], values 0 to 1, encoded and decoded by the base's VAE."""
    decoded = load_file(folder.sampled / DECODED_FILE)
    return decoded["training"], decoded["held_out"]
