"""Snapshots are applied while prompts are read, and reading takes no thread from others."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.catalogue.snapshot import Snapshot
from serving.router.embedding import Contextual, Embedder
from serving.router.router import Router
from serving.router.updater import RouterUpdater
from tests.support.snapshots import Registered, adapter, snapshot

LYING = Registered("lying", "a person lying on the grass")


def test_reading_leaves_the_default_executor_free_and_holds_up_no_snapshot(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    contextual, may = embedder.contextual, threading.Event()

    def held(text: str) -> Contextual:
        may.wait(60)
        return contextual(text)

    monkeypatch.setattr(embedder, "contextual", held)
    router = Router(Snapshot(), embedder)
    updater = RouterUpdater(router)

    async def update_often() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        updates = [
            asyncio.create_task(updater.update(snapshot([adapter(LYING, champion=number)], number=number)))
            for number in range(1, 6)
        ]
        while router.snapshot.number < 5:
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 60) == "free"
        assert not any(update.done() for update in updates)
        may.set()
        await asyncio.gather(*updates)

    asyncio.run(update_often())
    assert router.route(LYING.prompt, user="ada").adapter is not None
