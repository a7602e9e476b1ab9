"""The frozen text-to-image model: finding it, loading its components, text embeddings, latents, and a cache of tensors.

``embedded/weights`` is the tiny Stable Diffusion 3 of this repository; ``corrector.loaded_base.Base`` is a loaded base. Names
are imported when they are first used, because torch takes seconds to import and a base is found and checked without it.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.base.cache import ContentCache, content_key
    from corrector.base.cached_embeddings import encode_prompts
    from corrector.base.component_files import check_component_files
    from corrector.base.latents import LatentPosterior, decode_latents, encode_images
    from corrector.base.loading import load_scheduler, load_text_encoders, load_transformer, load_vae
    from corrector.base.memory import (
        PrecisionCost,
        describe_precision,
        ensure_memory,
        free_memory,
        transformer_bytes,
    )
    from corrector.base.resolve import find_base, resolve_base
    from corrector.base.spec import BaseSpec, Precision
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
    "check_component_files",
    "check_transformer",
    "content_key",
    "decode_latents",
    "describe_precision",
    "encode_images",
    "encode_prompts",
    "ensure_memory",
    "find_base",
    "free_memory",
    "load_scheduler",
    "load_text_encoders",
    "load_transformer",
    "load_vae",
    "resolve_base",
    "transformer_bytes",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "cache": ("ContentCache", "content_key"),
        "cached_embeddings": ("encode_prompts",),
        "component_files": ("check_component_files",),
        "latents": ("LatentPosterior", "decode_latents", "encode_images"),
        "loading": ("load_scheduler", "load_text_encoders", "load_transformer", "load_vae"),
        "memory": (
            "PrecisionCost",
            "describe_precision",
            "ensure_memory",
            "free_memory",
            "transformer_bytes",
        ),
        "resolve": ("find_base", "resolve_base"),
        "spec": ("BaseSpec", "Precision"),
        "text_encoders": ("TextEmbeddings", "TextEncoders"),
        "weights": ("check_transformer",),
    },
)
