"""ContentCache: tensors in storage, keyed by the content that they were computed from."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Self

import safetensors.torch
import torch
from torch import Tensor

from corrector.files import remove_least_recently_used
from corrector.storage import Storage, StoredFile

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[A-Za-z0-9_-]{1,200}")
_SUFFIX = ".tensors"
"""Of an entry's file: the SHA-256 of the rest, and safetensors."""
_DIGEST_BYTES = hashlib.sha256().digest_size


def content_key(*parts: str | float | None) -> str:
    """SHA-256 in hex of ``parts``, their types and their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ContentCache:
    """Named tensors by key, which processes may share: entries are written whole, and checked by SHA-256 when they are read.

    Keys are letters, digits, ``-`` and ``_``; :func:`content_key` makes one from everything that determines the tensors.
    """

    def __init__(self, place: Storage | Path) -> None:
        self.storage = Storage.of(place)

    @property
    def images(self) -> Self:
        """The part with the base's images and their features, which can be drawn again: a folder that `trim` bounds."""
        part = copy(self)
        part.storage = self.storage.below("images")
        return part

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of ``key`` on the CPU, or None; a damaged entry is removed and counts as missing."""
        entry = self._entry(key)
        try:
            for _ in range(2):  # on S3, again without this node's copy: the object may be whole
                # All that was ever stored under a key is right, so a copy is not compared with the object.
                if not entry.path.is_file() and not entry.fetch():
                    return None
                content = entry.path.read_bytes()
                digest, tensors = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
                if hashlib.sha256(tensors).digest() == digest:
                    with suppress(OSError):  # another user's
                        os.utime(entry.path)
                    return safetensors.torch.load(tensors)
                entry.forget()
        except FileNotFoundError:
            return None
        logger.warning("cache entry %s is damaged; computing it again", entry.path)
        entry.remove()
        return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes ``tensors`` under ``key``, in one step."""
        own = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        content = safetensors.torch.save(own)
        self._entry(key).write(hashlib.sha256(content).digest() + content)

    def trim(self, budget: int) -> None:
        """Remove entries of this node's folder, least recently used first, until they have at most `budget` bytes.

        Objects on S3 stay: there the folder has copies.
        """
        remove_least_recently_used(self.storage.disk.glob(f"??/*{_SUFFIX}"), budget)

    def _entry(self, key: str) -> StoredFile:
        if not _KEY.fullmatch(key):
            raise ValueError(f"cache key {key!r}: expected 1 to 200 letters, digits, - or _")
        return self.storage.file(f"{key[:2]}/{key}{_SUFFIX}")
