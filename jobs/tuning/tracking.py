"""Logs a search to MLflow in a thread, so that a registry that is slow or down does not delay the search."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from corrector.record.search_results import SearchResult
from corrector.registry import RegistryError
from corrector.registry.searches import log_search

logger = logging.getLogger(__name__)

SECONDS = 30.0
"""Seconds between two progress reports; each reads every trial."""


class SearchTracking:
    """Logs the trials of a search when they end, and its choices at the end. Not thread-safe."""

    def __init__(self, read: Callable[[], SearchResult], *, tracking_uri: str | None, root: Path) -> None:
        """`read` returns the search's result so far and may be called from any thread; the rest is as in `log_search`."""
        self._read = read
        self._tracking_uri = tracking_uri
        self._root = root
        self._next = time.monotonic() + SECONDS
        self._thread: threading.Thread | None = None
        self._is_down = False

    def update(self) -> None:
        """Start to log changes, if it is time."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._next = time.monotonic() + SECONDS
        self._thread = threading.Thread(target=self._log_running, name="mlflow", daemon=True)
        self._thread.start()

    def finish(self, result: SearchResult) -> None:
        """Log the final result; if the registry is down, only log a warning."""
        self.join()
        self._log(result, ended=True)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _log_running(self) -> None:
        self._log(self._read(), ended=False)

    def _log(self, result: SearchResult, *, ended: bool) -> None:
        try:
            log_search(result, tracking_uri=self._tracking_uri, root=self._root, ended=ended)
        except RegistryError as error:
            if ended or not self._is_down:
                logger.warning("the search is not in MLflow: %s", error)
            self._is_down = True
