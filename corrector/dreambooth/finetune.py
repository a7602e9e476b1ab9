"""One DreamBooth fine-tune: its data, and the check that it fits a transformer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corrector.base import LatentPosterior, TextEmbeddings
from corrector.errors import UserError
from corrector.prompts import HyperParameters


@dataclass(frozen=True)
class FineTune:
    """The data of one prompt's fine-tune, encoded.

    Guard preservation needs ``guards``, prior preservation ``class_prompt`` and ``class_posterior``, and
    ``horizontal_flip`` needs ``mirrored_posterior``.
    """

    name: str
    posterior: LatentPosterior
    """The training exemplars as the VAE encodes them, ``[N, C, h, w]``."""
    prompt: TextEmbeddings
    """The failing prompt, one row."""
    hyperparameters: HyperParameters
    guards: TextEmbeddings | None = None
    """The guard prompts, one row each."""
    class_prompt: TextEmbeddings | None = None
    """The class prompt of classic DreamBooth, one row."""
    class_posterior: LatentPosterior | None = None
    """The base's own images of the class prompt, ``[M, C, h, w]``."""
    mirrored_posterior: LatentPosterior | None = None
    """The mirrored exemplars in the exemplars' order; latents of mirrored images are not mirrored latents."""

    @property
    def texts(self) -> TextEmbeddings:
        """The prompt in row 0, then the guard prompts or the class prompt, as preservation needs them."""
        kind = self.hyperparameters.preservation
        if kind == "guard" and self.guards is not None:
            return TextEmbeddings.cat([self.prompt, self.guards])
        if kind == "prior" and self.class_prompt is not None:
            return TextEmbeddings.cat([self.prompt, self.class_prompt])
        return self.prompt


def check_fits(task: FineTune, config: Any, rank: int) -> None:
    """Raises :class:`UserError` if ``task`` lacks something or does not fit the transformer's ``config``.

    The engine calls it before a fine-tune joins a forward that others share.
    """
    for problem in _problems(task, config, rank):
        raise UserError(f"{task.name}: {problem}")


def _problems(task: FineTune, config: Any, rank: int) -> Iterator[str]:
    settings = task.hyperparameters
    if settings.rank > rank:
        yield f"rank {settings.rank} is above {rank}, the highest that this pack holds"
    if settings.preservation == "guard" and (task.guards is None or len(task.guards) == 0):
        yield 'guard preservation needs guard prompts; name some, or set preservation to "prior" or "none"'
    if settings.preservation == "prior" and (task.class_prompt is None or task.class_posterior is None):
        yield 'prior preservation needs a class prompt and its images; give a class prompt, or set preservation to "none"'
    if settings.horizontal_flip and task.mirrored_posterior is None:
        yield "horizontal_flip needs the mirrored exemplars' latents"
    yield from _posterior_problems(task, config)
    for label, text in (
        ("prompt", task.prompt),
        ("guard prompts", task.guards),
        ("class prompt", task.class_prompt),
    ):
        if text is not None:
            yield from _text_problems(label, text, task.prompt, config)


def _posterior_problems(task: FineTune, config: Any) -> Iterator[str]:
    side = config.pos_embed_max_size * config.patch_size
    first = task.posterior.mean
    posteriors = (
        ("exemplars", task.posterior),
        ("class images", task.class_posterior),
        ("mirrored exemplars", task.mirrored_posterior),
    )
    for label, posterior in posteriors:
        if posterior is None:
            continue
        shape = list(posterior.mean.shape)
        if len(shape) != 4 or shape[0] == 0 or posterior.std.shape != posterior.mean.shape:
            yield f"{label}: latents have shape {shape}; expected [N, C, h, w] with at least one image"
        elif shape[1] != config.in_channels or any(
            length % config.patch_size or length > side for length in shape[2:]
        ):
            yield (
                f"{label}: latents of shape {shape[1:]} do not fit this transformer: {config.in_channels} channels, "
                f"sides in multiples of {config.patch_size} up to {side}"
            )
        elif shape[1:] != list(first.shape[1:]):
            yield f"{label}: latents of shape {shape[1:]} differ from the exemplars', {list(first.shape[1:])}"
        elif not _finite(posterior.mean, posterior.std):
            yield f"{label}: latents are not finite; the VAE overflowed, encode in float32"
    if task.mirrored_posterior is not None and task.mirrored_posterior.mean.shape != first.shape:
        yield "mirrored exemplars: expected one for every exemplar"


def _text_problems(label: str, text: TextEmbeddings, prompt: TextEmbeddings, config: Any) -> Iterator[str]:
    widths = (text.prompt.shape[-1], text.pooled.shape[-1])
    expected = (config.joint_attention_dim, config.pooled_projection_dim)
    if widths != expected:
        yield f"{label}: text embeddings of widths {widths} do not fit this transformer, which reads {expected}"
    elif text.prompt.shape[1] != prompt.prompt.shape[1]:
        yield f"{label}: {text.prompt.shape[1]} tokens where the prompt has {prompt.prompt.shape[1]}"
    elif label != "guard prompts" and len(text) != 1:
        yield f"{label}: {len(text)} rows of text embeddings; expected one"
    elif not _finite(text.prompt, text.pooled):
        yield f"{label}: text embeddings are not finite"


def _finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
