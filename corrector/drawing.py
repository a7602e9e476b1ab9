"""Draws the images that assessments ask for: those of all corrections of a pack in shared batches, the base's once.

The base's image of a text and seed is the same for every version of a prompt and for every prompt that shares a guard, so it
is kept by everything that determines it, and so are its features. An entry holds up to eight images: on S3 a look costs a few
requests, and none reads an image that is not wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby

import torch
from torch import Tensor

from corrector.base import TextEmbeddings, content_key
from corrector.cost import BaseCost, CorrectionCost, Counts
from corrector.evaluation import Assessment, Row
from corrector.evaluation.comparison import GuardSamples
from corrector.evaluation.guard_shift import guard_shift
from corrector.evaluation.images import as_stored
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.loaded_base import NEGATIVE_PROMPT, Base
from corrector.prompt_inputs import side_of
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.sampling import SampleRow
from corrector.settings import Settings

Sample = Callable[[list[SampleRow]], Tensor]
"""Images `[N, 3, H, W]` in 0..1 of the rows, on the CPU."""
Block = tuple[Row, ...]
"""Rows whose images are kept together."""

BLOCK_ROWS = 8
"""Most rows of a block."""


@dataclass(frozen=True)
class Candidate:
    """A trained adapter in a slot of the bank, and its evaluation so far.

    Attributes:
        new: The rows whose base images were drawn for it, and not kept from before or drawn for another candidate.
    """

    assessment: Assessment
    embeddings: Mapping[str, TextEmbeddings]
    slot: int
    new: set[Row] = field(default_factory=set)

    def cost(self, entry: FailingPrompt, base: Base, evaluation: EvaluationSettings) -> CorrectionCost:
        """What the correction of `entry` cost, once its images are drawn."""
        assessment, exemplars = self.assessment, self.assessment.exemplars
        counts = Counts.of(
            entry,
            evaluation,
            assessment.drawn,
            exemplars=(len(exemplars.training), len(exemplars.held_out)),
            new=self.new,
            shifts=(*assessment.guard_shifts, *assessment.negative_shifts),
        )
        return CorrectionCost.of(
            BaseCost.of(base.spec, side_of(entry, base.spec)), entry.hyperparameters, evaluation, counts
        )


class BaseImages:
    """The base's images of one size, kept in the base's cache, a block in an entry, by what determines them."""

    def __init__(self, base: Base, evaluation: EvaluationSettings, side: int) -> None:
        self._cache = None if base.cache is None else base.cache.images
        self._budget = Settings.from_environment().image_cache_bytes
        steps, guidance = evaluation.num_inference_steps, evaluation.guidance_scale
        self._settings = (
            base.spec.identity,
            str(base.dtype),
            base.device.type,
            side,
            base.spec.num_inference_steps if steps is None else steps,
            base.spec.guidance_scale if guidance is None else guidance,
            NEGATIVE_PROMPT,
        )

    def get(self, block: Block) -> Tensor | None:
        """The images `[N, 3, H, W]` in 0..1, or None where they are not kept."""
        found = self._cache.get(self._key(block)) if self._cache else None
        return None if found is None else found["pixels"].float().div(255)

    def put(self, block: Block, images: Tensor) -> None:
        """Keep the images `[N, 3, H, W]`, rounded to 8 bits, if their values are finite."""
        if self._cache is not None and bool(images.isfinite().all()):
            self._cache.put(self._key(block), {"pixels": images.mul(255).round().to(torch.uint8)})

    def trim(self) -> None:
        """Remove the least recently used images and features beyond `CORRECTOR_IMAGE_CACHE_GIB`."""
        if self._cache is not None:
            self._cache.trim(self._budget)

    def _key(self, block: Block) -> str:
        return content_key("base images", *self._settings, *(part for row in block for part in row))


def draw(
    candidates: Sequence[Candidate],
    base: Base,
    evaluation: EvaluationSettings,
    *,
    side: int,
    sample: Sample,
    predict: Sample,
) -> None:
    """Draw images of `side` pixels until every assessment knows its verdict.

    Args:
        sample: Draws images of rows.
        predict: As `sample`, but returns the normalised latents `[N, C, h, w]`.
    """
    kept = BaseImages(base, evaluation, side)
    while True:
        for each in candidates:
            if near := each.assessment.unscreened:
                prompt = each.assessment.drawn.own[0][0]
                shifts = predicted_shifts(
                    prompt, near, each.embeddings, base, slot=each.slot, predict=predict
                )
                each.assessment.screen(shifts)
        waiting = [each for each in candidates if each.assessment.wanted]
        if not waiting:
            return
        _draw_wanted(waiting, base, evaluation, kept, sample)


def predicted_shifts(
    prompt: str,
    near: Sequence[GuardSamples],
    embeddings: Mapping[str, TextEmbeddings],
    base: Base,
    *,
    slot: int,
    predict: Sample,
) -> list[PredictionShift]:
    """How far the adapter in `slot` moves predictions for prompts near `prompt` towards its own, from their seeds' noises.

    A prediction is one unguided step: from pure noise it gives the predicted final latents.

    Args:
        near: Guard prompts and hard negatives; the seeds of each are the first of the longest.
    """

    def rows(text: str, seeds: Sequence[int], slot: int) -> list[SampleRow]:
        texts = [(text, seed) for seed in seeds]
        return base.rows(texts, embeddings, slot=slot, num_inference_steps=1, guidance_scale=1.0)

    seeds = max((each.seeds for each in near), key=len)
    asked = rows(prompt, seeds, slot)
    for each in near:
        asked += rows(each.prompt, each.seeds, 0) + rows(each.prompt, each.seeds, slot)
    sizes = [len(each.seeds) for each in near for _ in ("base", "corrected")]
    leaked, *predicted = predict(asked).split([len(seeds), *sizes])
    shifts = []
    for each, before, after in zip(near, predicted[::2], predicted[1::2], strict=True):
        shift = guard_shift(before, after, leaked[: len(before)])
        largest, mean = float(shift.max()), float(shift.mean())
        shifts.append(PredictionShift(prompt=each.prompt, n=len(shift), largest=largest, mean=mean))
    return shifts


def _draw_wanted(
    waiting: Sequence[Candidate], base: Base, evaluation: EvaluationSettings, kept: BaseImages, sample: Sample
) -> None:
    """Draw what the assessments want next; of the base only what is not kept."""
    blocks = [wanted_blocks(each.assessment) for each in waiting]
    found = {block: kept.get(block) for block in dict.fromkeys(chain.from_iterable(blocks))}
    befores = {
        row: image
        for block, images in found.items()
        if images is not None
        for row, image in zip(block, images, strict=True)
    }
    new = {row: each for each in waiting for row in each.assessment.wanted if row not in befores}

    def rows(each: Candidate, wanted: Sequence[Row], slot: int) -> list[SampleRow]:
        return base.rows(
            wanted,
            each.embeddings,
            slot=slot,
            num_inference_steps=evaluation.num_inference_steps,
            guidance_scale=evaluation.guidance_scale,
        )

    asked = [row for wanted, each in new.items() for row in rows(each, [wanted], 0)]
    for each in waiting:
        asked += rows(each, each.assessment.wanted, each.slot)
    drawn, *afters = as_stored(sample(asked)).split(
        [len(new), *(len(each.assessment.wanted) for each in waiting)]
    )
    befores |= zip(new, drawn, strict=True)
    for row, each in new.items():
        each.new.add(row)
    for block, images in found.items():
        if images is None:
            kept.put(block, torch.stack([befores[row] for row in block]))
    kept.trim()
    for each, own, after in zip(waiting, blocks, afters, strict=True):
        before, memory = torch.stack([befores[row] for row in each.assessment.wanted]), each.assessment.memory
        parts = before.split([len(block) for block in own])
        for part in parts:
            memory.recall(part)
        each.assessment.add(before, after)
        for part in parts:
            memory.keep(part)


def wanted_blocks(assessment: Assessment) -> list[Block]:
    """The wanted rows in their order: the prompt's own in blocks, and those of each other text in blocks."""
    wanted = assessment.wanted
    own = max(len(assessment.drawn.own) - len(assessment.before), 0)
    parts = [wanted[:own], *(list(rows) for _, rows in groupby(wanted[own:], key=lambda row: row[0]))]
    return [
        tuple(part[first : first + BLOCK_ROWS]) for part in parts for first in range(0, len(part), BLOCK_ROWS)
    ]
