"""Snapshots are applied while heads are trained, and training takes no thread from others."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.catalogue.snapshot import Snapshot
from serving.router.embedding import Embedder, Embeddings
from serving.router.router import Router
from serving.router.updater import RouterUpdater
from serving.settings import RouterSettings
from tests.support.ingress import QUICK_HEADS
from tests.support.snapshots import Registered, adapter, snapshot

LYING = Registered("lying", "a person lying on the grass")


def test_training_leaves_the_default_executor_free_and_holds_up_no_snapshot(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, may = embedder.embed, threading.Event()

    def held(texts: Sequence[str]) -> Embeddings:
        may.wait(60)
        return embed(texts)

    monkeypatch.setattr(embedder, "embed", held)
    router = Router(Snapshot(), embedder, RouterSettings(head=QUICK_HEADS))
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
