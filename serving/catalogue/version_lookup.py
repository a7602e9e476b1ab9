"""VersionLookup: finds versions without an alias, so that reviewers can make images with them."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from corrector.errors import UserError
from serving.adapter_identity import AdapterIdentity
from serving.engine.request import Overloaded
from serving.engine.single_flight import SingleFlightCache
from serving.settings import CatalogueSettings

_logger = logging.getLogger(__name__)
_THREADS = 2


class VersionLookup:
    """Looks versions up in separate threads, so that requests for unknown versions do not delay others.

    Requests for the same version share one lookup. That a version was not found is cached for `unknown_seconds`; a version
    that was found is not cached, since aliases move.
    """

    def __init__(self, find: Callable[[str, str], AdapterIdentity], settings: CatalogueSettings) -> None:
        """`find` takes a name and a version, and raises UserError where there is none that can be served."""
        self._max = settings.max_lookups
        self._executor = ThreadPoolExecutor(_THREADS, "version-lookup")
        self._found = SingleFlightCache[tuple[str, str], AdapterIdentity](
            lambda key: find(*key),
            size=lambda _: 1,
            budget=0,
            executor=self._executor,
            failure_seconds=settings.unknown_seconds,
        )

    async def find(self, name: str, version: str) -> AdapterIdentity | None:
        """The adapter; None where there is none that can be served.

        Raises:
            Overloaded: `max_lookups` versions are being looked up.
        """
        if self._found.pending >= self._max:
            raise Overloaded("too many versions are being looked up; try again later", retry_after=1.0)
        try:
            # Shielded, since other requests may wait for the same future.
            return await asyncio.shield(asyncio.wrap_future(self._found.get((name, version))))
        except UserError as error:
            adapter = f"{name}@{version}"
            _logger.info("%s cannot be served: %s", adapter, error, extra={"adapter": adapter})
            return None

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
