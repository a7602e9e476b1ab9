"""ContentCache: tensors on disk, keyed by the content that they were computed from."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from corrector.files import write_atomically

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[A-Za-z0-9_-]{1,200}")


def content_key(*parts: str | float | None) -> str:
    """SHA-256 in hex of ``parts``, their types and their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ContentCache:
    """Named tensors by key in ``folder``, which processes may share: entries are written whole and never change.

    Keys are letters, digits, ``-`` and ``_``; :func:`content_key` makes one from everything that determines the tensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of ``key`` on the CPU, or None; a damaged entry is removed and counts as missing."""
        path = self._path(key)
        try:
            return safetensors.torch.load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError) as error:
            logger.warning("cache entry %s is damaged (%s); computing it again", path, error)
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes ``tensors`` under ``key``, in one step."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        payload = safetensors.torch.save(own)
        write_atomically(path, payload)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"cache key {key!r}: expected 1 to 200 letters, digits, - or _")
        return self.folder / key[:2] / f"{key}.safetensors"
