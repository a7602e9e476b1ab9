"""The frozen text-to-image model: where it is, its parts, text embeddings, latents, and a cache of tensors.

Ground floor of the library. ``embedded`` holds the tiny Stable Diffusion 3 that travels with the repository.
"""

from corrector.base.cache import ContentCache, content_key
from corrector.base.encoding import encode_prompts
from corrector.base.latents import LatentPosterior, decode_latents, encode_images
from corrector.base.loading import load_scheduler, load_text_encoders, load_transformer, load_vae
from corrector.base.memory import (
    PrecisionCost,
    describe_precision,
    ensure_memory,
    free_memory,
    transformer_bytes,
)
from corrector.base.precision import Precision
from corrector.base.resolve import resolve_base
from corrector.base.spec import BaseSpec
from corrector.base.text import TextEmbeddings, TextEncoders
from corrector.base.weights import check_transformer

__all__ = [
    "BaseSpec",
    "ContentCache",
    "LatentPosterior",
    "Precision",
    "PrecisionCost",
    "TextEmbeddings",
    "TextEncoders",
    "check_transformer",
    "content_key",
    "decode_latents",
    "describe_precision",
    "encode_images",
    "encode_prompts",
    "ensure_memory",
    "free_memory",
    "load_scheduler",
    "load_text_encoders",
    "load_transformer",
    "load_vae",
    "resolve_base",
    "transformer_bytes",
]
