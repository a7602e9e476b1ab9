"""CountedCache: a content cache that reports whether each read found something."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from corrector.base import ContentCache
from corrector.storage import Storage
from jobs.log_context import name_of_run

logger = logging.getLogger(__name__)


class CountedCache(ContentCache):
    """A ContentCache that calls `counted` at each read, with whether the entry was there."""

    def __init__(self, place: Storage | Path, counted: Callable[[bool], None]) -> None:
        super().__init__(place)
        self._counted = counted

    def get(self, key: str) -> dict[str, Tensor] | None:
        found = super().get(key)
        self._counted(found is not None)
        return found


def count_cache_read(hit: bool) -> None:
    """Count a read in the metric `ray_corrector_job_cache_reads_total`."""
    try:
        _reads().inc(tags={"run": name_of_run(), "result": "hit" if hit else "miss"})
    except Exception:
        logger.debug("metrics of the job are incomplete", exc_info=True)


@cache
def _reads() -> Any:
    from ray.util import metrics  # lanes use this module without Ray

    return metrics.Counter(
        "corrector_job_cache_reads",
        "Reads of encoded texts, latents, images and features.",
        ("run", "result"),
    )
