"""Judging for the end-to-end benchmark: pairs of images, drawn by our sampler or by diffusers' pipeline, and scored.

Both draw as many pairs of a prompt with the same seeds, and the same protocol scores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from corrector.adapters import Adapter, AdapterBank
from corrector.base import TextEmbeddings
from corrector.drawing import Candidate, draw
from corrector.evaluation import Assessment, Comparison, Exemplars, FeatureMemory
from corrector.evaluation.images import as_stored
from corrector.evaluation.score import score
from corrector.loaded_base import Base
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds
from tests.benchmarks.subject import Subject

PIPELINE_ROWS = 8
"""Images in a call of the pipeline, so that small batches do not slow it."""


@dataclass(frozen=True)
class Protocol:
    """A fixed number of pairs of each prompt, no guard prompts: random weights pass no look that could stop it."""

    pairs: int
    steps: int

    @property
    def settings(self) -> EvaluationSettings:
        """The settings of the evaluation."""
        return EvaluationSettings(
            images=self.pairs,
            look_images=self.pairs,
            stop_early=False,
            hard_negatives=0,
            num_inference_steps=self.steps,
        )

    def assessment(self, prompt: str, images: Tensor) -> Assessment:
        """The evaluation of a prompt whose exemplars are ``images [N, 3, H, W]``."""
        entry = FailingPrompt.model_validate(
            {"prompt": prompt, "exemplars": "exemplars", "hyperparameters": {"preservation": "none"}}
        )
        held_out = images[-2:]
        compared = Exemplars(images[:-2], held_out, (images[:-2], held_out))
        return Assessment(
            Comparison.of(entry, self.settings), compared, FeatureMemory(), self.settings, GateThresholds()
        )

    def finish(self, name: str, assessment: Assessment) -> None:
        """The scorecard of an assessment whose images are drawn."""
        score(
            name,
            assessment.drawn,
            assessment.before,
            assessment.after,
            assessment.exemplars,
            settings=self.settings,
            thresholds=GateThresholds(),
            memory=assessment.memory,
            threads=torch.get_num_threads(),
        )


def judge(
    protocol: Protocol,
    adapters: Mapping[str, Adapter],
    embeddings: Mapping[str, TextEmbeddings],
    base: Base,
    bank: AdapterBank,
    images: Tensor,
) -> None:
    """Draw the pairs of all prompts in shared batches, as a lane does, and score them. ``adapters``: by prompt."""
    side, candidates = images.shape[-1], []
    for slot, (prompt, adapter) in enumerate(adapters.items(), start=1):
        bank.load(slot, adapter)
        candidates.append(Candidate(protocol.assessment(prompt, images), embeddings, slot))
    draw(
        candidates,
        base,
        protocol.settings,
        side=side,
        sample=partial(base.sample_rows, bank=bank, height=side, width=side),
        predict=partial(base.sample_latents, bank=bank, height=side, width=side),
    )
    for prompt, candidate in zip(adapters, candidates, strict=True):
        bank.unload(candidate.slot)
        protocol.finish(prompt, candidate.assessment)


def judge_by_pipeline(
    protocol: Protocol, prompt: str, adapter: Path, subject: Subject, folder: Path, images: Tensor
) -> None:
    """The same for one prompt with diffusers' pipeline: loaded, the base's images, the adapter's, scored."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=subject.dtype).to(subject.device)
    pipeline.set_progress_bar_config(disable=True)
    assessment = protocol.assessment(prompt, images)
    seeds = [seed for _, seed in assessment.wanted]
    drawn = partial(
        _drawn, pipeline, prompt, seeds, protocol.steps, images.shape[-1], subject.text_lengths[1]
    )
    before = drawn()
    pipeline.load_lora_weights(adapter)
    assessment.add(before, drawn())
    protocol.finish(prompt, assessment)


def _drawn(
    pipeline: Callable[..., tuple[Tensor]],
    prompt: str,
    seeds: Sequence[int],
    steps: int,
    side: int,
    max_sequence_length: int,
) -> Tensor:
    found = []
    for first in range(0, len(seeds), PIPELINE_ROWS):
        some = seeds[first : first + PIPELINE_ROWS]
        (part,) = pipeline(
            [prompt] * len(some),
            num_inference_steps=steps,
            height=side,
            width=side,
            max_sequence_length=max_sequence_length,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in some],
            output_type="pt",
            return_dict=False,
        )
        found.append(part.float().cpu())
    return as_stored(torch.cat(found))
