"""RouterUpdater: applies snapshots to a router from an event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from serving.catalogue.snapshot import Snapshot
from serving.router.router import Router


class RouterUpdater:
    """Reads prompts in its own thread, so that the event loop's default executor stays free and a snapshot is applied while
    prompts of an earlier one are read."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._applying = ThreadPoolExecutor(1, "router-update")
        self._reading = ThreadPoolExecutor(1, "prompt-reading")

    async def update(self, snapshot: Snapshot) -> None:
        """Route by `snapshot`; returns when its prompts are read."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._applying, self._router.apply, snapshot)
        await loop.run_in_executor(self._reading, self._router.read_prompts)
