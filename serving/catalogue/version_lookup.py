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
    """Looks versions up in threads of its own, so that clients who ask for unknown ones hold up nobody else.

    A version that is being looked up is looked up once for all who ask; one that was not found is remembered for
    `unknown_seconds`. What was found is not cached: aliases move.
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
            # Others may wait for the same future: it is not cancelled with one of them.
            return await asyncio.shield(asyncio.wrap_future(self._found.get((name, version))))
        except UserError as error:
            _logger.info("%s@%s cannot be served: %s", name, version, error)
            return None

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)
