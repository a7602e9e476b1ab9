"""AdapterDiskCache: a cache on disk, of limited size, for adapters from the registry."""

import logging
import os
import shutil
from pathlib import Path
from threading import Lock
from typing import Protocol

from corrector.adapters import WEIGHTS_NAME, Adapter, AdapterError, load_adapter
from corrector.errors import UserError
from corrector.files import file_sha256
from serving.adapter_identity import AdapterIdentity
from serving.engine.request import AdapterUnavailable

logger = logging.getLogger(__name__)


class AdapterSource(Protocol):
    """A source of adapters: the registry and its object store."""

    def fetch(self, adapter: AdapterIdentity, destination: Path) -> None:
        """Write the adapter's folder atomically to `destination`, which must not exist.

        Raises:
            UserError: It cannot be fetched.
        """


class AdapterDiskCache:
    """A folder of adapters, by SHA-256; processes of one machine may share it.

    A load checks the bytes against the SHA-256. If the adapter is damaged, or another process is removing it, it is fetched
    again, once.
    """

    def __init__(self, folder: Path, source: AdapterSource, *, budget: int) -> None:
        """`budget` in bytes: least recently used adapters are removed first, except those that are being read."""
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
        with self._lock:
            folders = {}
            for folder in self._folder.glob("??/*"):
                try:
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    folders[folder] = (folder.stat().st_mtime, size)
                except OSError:
                    continue  # another process is removing it
            total = sum(size for _, size in folders.values())
            for folder, (_, size) in sorted(folders.items(), key=lambda item: item[1]):
                if total <= self._budget:
                    return
                if folder.name not in self._reading:
                    shutil.rmtree(folder, ignore_errors=True)
                    total -= size
