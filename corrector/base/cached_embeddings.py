"""Encoding of prompts: text encoders are loaded only for what is not cached, and released again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from corrector.base.cache import ContentCache, content_key
from corrector.base.loading import load_text_encoders
from corrector.base.spec import BaseSpec
from corrector.base.text_encoders import TextEmbeddings


def encode_prompts(
    spec: BaseSpec,
    prompts: Sequence[str],
    *,
    cache: ContentCache | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, TextEmbeddings]:
    """Embeddings of every distinct prompt, one row each, on the CPU in ``dtype``; computed on ``device``.

    Every prompt is encoded by itself, so its embeddings do not depend on the other prompts.
    """
    keys = {prompt: _key(spec, prompt, dtype) for prompt in prompts}
    found: dict[str, TextEmbeddings] = {}
    for prompt, key in keys.items():
        stored = cache.get(key) if cache is not None else None
        if stored is not None and stored.keys() == {"prompt", "pooled"}:
            found[prompt] = TextEmbeddings(stored["prompt"], stored["pooled"]).to(dtype=dtype)
    missing = [prompt for prompt in keys if prompt not in found]
    if missing:
        encoders = load_text_encoders(spec, dtype=dtype, device=device)
        for prompt in missing:
            embeddings = found[prompt] = encoders.encode([prompt]).to("cpu", dtype)
            if cache is not None:
                cache.put(keys[prompt], {"prompt": embeddings.prompt, "pooled": embeddings.pooled})
    return {prompt: found[prompt] for prompt in keys}


def _key(spec: BaseSpec, prompt: str, dtype: torch.dtype) -> str:
    text = prompt.encode("utf-8", "replace").decode("utf-8")
    return content_key("text", spec.revision, spec.max_sequence_length, str(dtype), text)
