"""The frozen text-to-image model: finding it, loading its components, text embeddings, latents, and a cache of tensors.

``embedded/weights`` is the tiny Stable Diffusion 3 of this repository; ``corrector.loaded_base.Base`` is a loaded base.
"""

from corrector.base.cache import ContentCache, content_key
from corrector.base.cached_embeddings import encode_prompts
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
from corrector.base.text_encoders import TextEmbeddings, TextEncoders
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
