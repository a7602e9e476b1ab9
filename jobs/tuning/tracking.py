"""MLflow hears of a search while it runs, beside it: a registry that is slow or down holds nothing up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from corrector.record.search import SearchResult
from corrector.registry import RegistryError
from corrector.registry.searches import log_search

logger = logging.getLogger(__name__)

SECONDS = 30.0
"""Between two reports, of which each looks at all trials."""


class SearchTracking:
    """Logs the trials of a search as they end, and its choices at the end. For one thread."""

    def __init__(self, read: Callable[[], SearchResult], *, tracking_uri: str | None, root: Path) -> None:
        """`read` tells what is known of the search so far, from any thread; the rest is as in `log_search`."""
        self._read = read
        self._tracking_uri = tracking_uri
        self._root = root
        self._next = time.monotonic() + SECONDS
        self._thread: threading.Thread | None = None
        self._is_down = False

    def update(self) -> None:
        """Log what is new if it is time, without waiting for it."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._next = time.monotonic() + SECONDS
        self._thread = threading.Thread(target=self._log_running, name="mlflow", daemon=True)
        self._thread.start()

    def finish(self, result: SearchResult) -> None:
        """Log what the search came to; a search whose registry is down is none the worse."""
        self.join()
        self._log(result, ended=True)

    def join(self) -> None:
        """Wait until what is being logged is logged."""
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
