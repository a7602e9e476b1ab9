"""Adapters off the device: fetched to disk, checked, and packed in host memory, each with a bound."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Protocol

from corrector.adapters import WEIGHTS_NAME, Adapter, AdapterError, PackedAdapter, load_adapter
from corrector.errors import UserError
from corrector.files import file_sha256
from serving.engine.request import AdapterUnavailable
from serving.identity import AdapterIdentity

logger = logging.getLogger(__name__)


class AdapterSource(Protocol):
    """Where adapters come from: the registry and its object store."""

    def fetch(self, adapter: AdapterIdentity, destination: Path) -> None:
        """Write the adapter's folder to `destination`, which is not there yet, whole or not at all.

        Raises:
            UserError: It cannot be had.
        """


class DiskCache:
    """Adapter folders below one folder, by SHA-256; processes of one machine may share it.

    Every load checks the bytes against the SHA-256; a folder that was damaged, or is being removed by another process, is
    fetched again, once.
    """

    def __init__(self, folder: Path, source: AdapterSource, *, budget: int) -> None:
        """`budget` in bytes; what was not used for longest goes first, and what is being read stays."""
        self._folder = folder
        self._source = source
        self._budget = budget
        self._reading: set[str] = set()
        self._lock = Lock()

    def load(self, adapter: AdapterIdentity) -> Adapter:
        """The adapter, from disk or from the source.

        Raises:
            AdapterUnavailable: It cannot be fetched, its bytes are not the registered ones, or it is no adapter.
        """
        folder = self._folder / adapter.sha256[:2] / adapter.sha256
        with self._lock:
            self._reading.add(adapter.sha256)
        try:
            if folder.exists():
                try:
                    return self._read(adapter, folder)
                except (AdapterUnavailable, OSError) as error:
                    logger.warning("%s: %s; fetching it again", folder, error)
                    shutil.rmtree(folder, ignore_errors=True)
            return self._fetch(adapter, folder)
        finally:
            with self._lock:
                self._reading.discard(adapter.sha256)
            self._trim()

    def _fetch(self, adapter: AdapterIdentity, folder: Path) -> Adapter:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._source.fetch(adapter, folder)
            return self._read(adapter, folder)
        except AdapterUnavailable:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except (UserError, OSError) as error:
            raise AdapterUnavailable(f"{adapter}: {error}") from error

    def _read(self, adapter: AdapterIdentity, folder: Path) -> Adapter:
        found = file_sha256(folder / WEIGHTS_NAME)
        if found != adapter.sha256:
            raise AdapterUnavailable(
                f"{adapter}: the SHA-256 of its weights is {found}, registered was {adapter.sha256}"
            )
        try:
            loaded = load_adapter(folder)
        except AdapterError as error:
            raise AdapterUnavailable(f"{adapter}: {error}") from error
        os.utime(folder)
        return loaded

    def _trim(self) -> None:
        """Removes folders until the rest fits the budget."""
        with self._lock:
            folders = {}
            for folder in self._folder.glob("??/*"):
                try:
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    folders[folder] = (folder.stat().st_mtime, size)
                except OSError:
                    continue  # another process removes it, too
            held = sum(size for _, size in folders.values())
            for folder, (_, size) in sorted(folders.items(), key=lambda item: item[1]):
                if held <= self._budget:
                    return
                if folder.name not in self._reading:
                    shutil.rmtree(folder, ignore_errors=True)
                    held -= size


def packing(
    disk: DiskCache, pack: Callable[[Adapter], PackedAdapter]
) -> Callable[[AdapterIdentity], PackedAdapter]:
    """What makes a packed adapter of an identity; raises AdapterUnavailable where it does not fit the device's bank."""

    def make(adapter: AdapterIdentity) -> PackedAdapter:
        loaded = disk.load(adapter)
        try:
            return pack(loaded)
        except AdapterError as error:
            raise AdapterUnavailable(f"{adapter}: {error}") from error

    return make


def packed_bytes(packed: PackedAdapter) -> int:
    """Host memory that it takes."""
    return packed.values.numel() * packed.values.element_size()
