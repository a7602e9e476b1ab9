"""The frozen text-to-image model: where it is, its parts, text embeddings, latents, and a cache of tensors.

Ground floor of the library. ``embedded`` holds the tiny Stable Diffusion 3 that travels with the repository.
"""

from corrector.base.cache import ContentCache, content_key
from corrector.base.latents import LatentPosterior, decode_latents, encode_images
from corrector.base.loading import load_scheduler, load_text_encoders, load_transformer, load_vae
from corrector.base.spec import BaseSpec, resolve_base
from corrector.base.text import TextEmbeddings, TextEncoders, encode_prompts

__all__ = [
    "BaseSpec",
    "ContentCache",
    "LatentPosterior",
    "TextEmbeddings",
    "TextEncoders",
    "content_key",
    "decode_latents",
    "encode_images",
    "encode_prompts",
    "load_scheduler",
    "load_text_encoders",
    "load_transformer",
    "load_vae",
    "resolve_base",
]
