"""Prepares texts, embeddings, exemplars and latents of one failing prompt for its fine-tune and its comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from corrector.adapters import AdapterBank
from corrector.base import BaseSpec, ContentCache, LatentPosterior, TextEmbeddings, content_key
from corrector.dreambooth import FineTune
from corrector.evaluation import Comparison
from corrector.exemplars import ExemplarSet
from corrector.loaded_base import NEGATIVE_PROMPT, Base
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.sampling import SampleRow


@dataclass(frozen=True)
class ExemplarImages:
    """The decoded exemplars of one prompt."""

    key: str
    """Key of their content in a cache."""
    training: Tensor
    """``[N, 3, H, W]``, values 0 to 1."""
    held_out: Tensor
    """``[K, 3, H, W]``, values 0 to 1."""

    @staticmethod
    def of(exemplars: ExemplarSet) -> ExemplarImages:
        """The images of a set that was loaded and split."""
        training, held_out = exemplars.training_images(), exemplars.held_out_images()
        shapes = (str(tuple(images.shape)) for images in (training, held_out))
        return ExemplarImages(content_key("exemplars", exemplars.digest, *shapes), training, held_out)

    @staticmethod
    def load(key: str, cache: ContentCache) -> ExemplarImages | None:
        """The images that were stored under ``key``; None if ``cache`` does not hold them."""
        images = cache.get(key)
        return None if images is None else ExemplarImages(key, images["training"], images["held_out"])

    def store(self, cache: ContentCache) -> str:
        """Puts them into ``cache``; returns the key."""
        if cache.get(self.key) is None:
            cache.put(self.key, {"training": self.training, "held_out": self.held_out})
        return self.key


def texts_of(entry: FailingPrompt, evaluation: EvaluationSettings) -> list[str]:
    """The distinct texts that training and comparison of ``entry`` encode."""
    comparison = Comparison.of(entry, evaluation)
    texts = [NEGATIVE_PROMPT, entry.prompt, *entry.guard_prompts]
    texts += [text for text, _ in comparison.own]
    texts += [negative.prompt for negative in comparison.negatives]
    if entry.class_prompt:
        texts.append(entry.class_prompt)
    return list(dict.fromkeys(texts))


def side_of(entry: FailingPrompt, spec: BaseSpec) -> int:
    """Width and height of the prompt's images in pixels."""
    return entry.hyperparameters.resolution or spec.resolution


def exemplar_posterior(base: Base, exemplars: ExemplarImages, *, mirrored: bool = False) -> LatentPosterior:
    """The VAE's posterior of the training exemplars or their mirror images, on the CPU; the base's cache is used."""
    key = content_key("posterior", base.spec.revision, exemplars.key, mirrored)
    found = None if base.cache is None else base.cache.get(key)
    if found is not None:
        return LatentPosterior(mean=found["mean"], std=found["std"])
    posterior = base.encode_images(exemplars.training.flip(-1) if mirrored else exemplars.training)
    if base.cache is not None:
        base.cache.put(key, {"mean": posterior.mean, "std": posterior.std})
    return posterior


def decoded_exemplars(base: Base, exemplars: ExemplarImages) -> tuple[Tensor, Tensor]:
    """Training and held-out exemplars, encoded and decoded by the base's VAE, for the check for copies."""
    training, held_out = (
        base.decode(base.encode_images(images).mean) for images in (exemplars.training, exemplars.held_out)
    )
    return training, held_out


def class_posterior(
    base: Base,
    entry: FailingPrompt,
    embeddings: Mapping[str, TextEmbeddings],
    *,
    bank: AdapterBank | None = None,
    batch_rows: int | None = None,
) -> LatentPosterior:
    """The base's own latents of the class prompt for prior preservation, with a spread of zero, on the CPU."""
    assert entry.class_prompt is not None
    seeds = range(entry.hyperparameters.seed, entry.hyperparameters.seed + entry.hyperparameters.class_images)
    side = side_of(entry, base.spec)
    rows = base.rows([(entry.class_prompt, seed) for seed in seeds], embeddings)
    latents = base.sample_latents(rows, bank, height=side, width=side, batch_rows=batch_rows)
    return LatentPosterior(mean=latents, std=torch.zeros_like(latents))


def fine_tune(
    entry: FailingPrompt,
    exemplars: ExemplarImages,
    embeddings: Mapping[str, TextEmbeddings],
    base: Base,
    *,
    name: str | None = None,
    bank: AdapterBank | None = None,
    batch_rows: int | None = None,
) -> FineTune:
    """The fine-tune of ``entry`` for the engine; class images are sampled if its prior preservation needs them.

    Args:
        embeddings: At least those of :func:`texts_of`.
        name: Name of the fine-tune; default: the prompt's name.
        bank: The bank of the base's transformer, if it has one.
        batch_rows: Class images in a batch.
    """
    hyper = entry.hyperparameters
    guards = entry.guard_prompts if hyper.preservation == "guard" else ()
    prior = entry.class_prompt if hyper.preservation == "prior" else None
    return FineTune(
        name=name or entry.name,
        posterior=exemplar_posterior(base, exemplars),
        prompt=embeddings[entry.prompt],
        guards=TextEmbeddings.cat([embeddings[text] for text in guards]) if guards else None,
        class_prompt=None if prior is None else embeddings[prior],
        class_posterior=None
        if prior is None
        else class_posterior(base, entry, embeddings, bank=bank, batch_rows=batch_rows),
        hyperparameters=hyper,
        mirrored_posterior=exemplar_posterior(base, exemplars, mirrored=True)
        if hyper.horizontal_flip
        else None,
    )


def comparison_rows(
    comparison: Comparison,
    evaluation: EvaluationSettings,
    embeddings: Mapping[str, TextEmbeddings],
    base: Base,
    *,
    slot: int,
) -> list[SampleRow]:
    """The rows of one side of ``comparison``: ``slot`` 0 is the base, any other the adapter in that slot."""
    return base.rows(
        comparison.rows,
        embeddings,
        slot=slot,
        num_inference_steps=evaluation.num_inference_steps,
        guidance_scale=evaluation.guidance_scale,
    )
