"""ContentCache: tensors in storage, keyed by the content that they were computed from."""

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

from corrector.storage import Storage, StoredFile

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[A-Za-z0-9_-]{1,200}")


def content_key(*parts: str | float | None) -> str:
    """SHA-256 in hex of ``parts``, their types and their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ContentCache:
    """Named tensors by key, which processes may share: entries are written whole and never change.

    Keys are letters, digits, ``-`` and ``_``; :func:`content_key` makes one from everything that determines the tensors.
    """

    def __init__(self, place: Storage | Path) -> None:
        self.storage = Storage.of(place)

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of ``key`` on the CPU, or None; a damaged entry is removed and counts as missing."""
        entry = self._entry(key)
        try:
            # Entries never change, so a copy on this node's disk is not compared with the stored one.
            if not entry.path.is_file() and not entry.fetch():
                return None
            return safetensors.torch.load(entry.path.read_bytes())
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError) as error:
            logger.warning("cache entry %s is damaged (%s); computing it again", entry.path, error)
            entry.remove()
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes ``tensors`` under ``key``, in one step."""
        own = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        self._entry(key).write(safetensors.torch.save(own))

    def _entry(self, key: str) -> StoredFile:
        if not _KEY.fullmatch(key):
            raise ValueError(f"cache key {key!r}: expected 1 to 200 letters, digits, - or _")
        return self.storage.file(f"{key[:2]}/{key}.safetensors")
