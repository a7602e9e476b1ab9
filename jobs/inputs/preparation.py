"""What every lane needs and none should compute: exemplars, text embeddings and latents, kept in the cache by content.

The driver puts the decoded exemplars there, `jobs.inputs.encoding` the rest. A lane reads no image file and never loads a
text encoder.
"""

from __future__ import annotations

import os

import torch

from corrector.base import (
    BaseSpec,
    ContentCache,
    LatentPosterior,
    TextEmbeddings,
    content_key,
    encode_images,
    encode_prompts,
    load_vae,
)
from corrector.errors import UserError
from corrector.evaluation import evaluation_rows, negative_seeds
from corrector.prompts import EvaluationSettings, FailingPrompt
from jobs.inputs.batch import PromptTask

NEGATIVE_PROMPT = ""


def exemplars_of(task: PromptTask, cache: ContentCache) -> dict[str, torch.Tensor]:
    """`training` and `held_out` exemplars [N, 3, H, W], values 0 to 1."""
    images = cache.get(task.exemplars)
    if images is None:
        raise UserError(
            f"{task.entry.name}: its exemplars are no longer in the cache; submit the batch again"
        )
    return images


def prompts_of(entry: FailingPrompt, evaluation: EvaluationSettings) -> list[str]:
    """Every text of `entry` that is ever encoded, without repetition."""
    texts = [NEGATIVE_PROMPT, entry.prompt, *entry.guard_prompts]
    texts += [prompt for prompt, _ in evaluation_rows(entry, evaluation)]
    texts += [negative.text for negative, _ in negative_seeds(entry, evaluation)]
    if entry.class_prompt:
        texts.append(entry.class_prompt)
    return list(dict.fromkeys(texts))


def embeddings_of(
    spec: BaseSpec,
    entry: FailingPrompt,
    evaluation: EvaluationSettings,
    cache: ContentCache,
    dtype: torch.dtype,
) -> dict[str, TextEmbeddings]:
    """The embeddings of all of `prompts_of`, each of one row, on the CPU in `dtype`."""
    return encode_prompts(spec, prompts_of(entry, evaluation), cache=cache, device="cpu", dtype=dtype)


def posterior_of(
    spec: BaseSpec, task: PromptTask, cache: ContentCache, device: str, *, mirrored: bool = False
) -> LatentPosterior:
    """The VAE's posterior of the training exemplars, or of their mirror images, on the CPU."""
    key = content_key("posterior", spec.revision, task.exemplars, mirrored)
    cached = cache.get(key)
    if cached is None:
        images = exemplars_of(task, cache)["training"]
        images = images.flip(-1) if mirrored else images
        posterior = encode_images(load_vae(spec, device=device), images.to(device))
        cached = {"mean": posterior.mean.cpu(), "std": posterior.std.cpu()}
        cache.put(key, cached)
    return LatentPosterior(mean=cached["mean"], std=cached["std"])


def bound_threads(threads: int) -> None:
    """Let torch use `threads` threads in this process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
