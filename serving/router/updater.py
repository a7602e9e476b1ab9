"""RouterUpdater: applies snapshots to a router from an event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from serving.catalogue.snapshot import Snapshot
from serving.router.router import Router


class RouterUpdater:
    """Trains heads in its own thread, so that the event loop's default executor stays free and a snapshot is applied while
    heads of an earlier one are trained."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._applying = ThreadPoolExecutor(1, "router-update")
        self._training = ThreadPoolExecutor(1, "head-training")

    async def update(self, snapshot: Snapshot) -> None:
        """Route by `snapshot`; returns when its heads are trained."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._applying, self._router.apply, snapshot)
        await loop.run_in_executor(self._training, self._router.train_heads)
