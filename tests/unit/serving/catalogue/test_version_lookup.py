"""Versions without an alias: looked up once for all who ask, and without holding anybody else up."""

import asyncio
import threading
from collections import Counter

import pytest

from corrector.errors import UserError
from serving.adapter_identity import AdapterIdentity
from serving.catalogue.version_lookup import VersionLookup
from serving.engine.request import Overloaded
from serving.settings import CatalogueSettings

CANDIDATE = AdapterIdentity("lying", "5", "0" * 64)


class Registry:
    """Has one version, and answers when it is allowed to."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.may = threading.Event()
        self.may.set()

    def find(self, name: str, version: str) -> AdapterIdentity:
        self.asked[name, version] += 1
        self.may.wait(60)
        if (name, version) != ("lying", "5"):
            raise UserError("no such version")
        return CANDIDATE


def test_an_unknown_version_is_looked_up_once_for_a_while_and_a_known_one_anew() -> None:
    registry = Registry()
    lookup = VersionLookup(registry.find, CatalogueSettings(unknown_seconds=60))

    async def ask() -> None:
        for _ in range(3):
            assert await lookup.find("lying", "9") is None
            assert await lookup.find("lying", "5") == CANDIDATE

    asyncio.run(ask())
    lookup.close()
    assert registry.asked == {("lying", "9"): 1, ("lying", "5"): 3}


def test_lookups_have_threads_and_a_bound_of_their_own() -> None:
    registry = Registry()
    registry.may.clear()
    lookup = VersionLookup(registry.find, CatalogueSettings(max_lookups=4))

    async def ask() -> None:
        asked = [asyncio.create_task(lookup.find("lying", str(number))) for number in (5, 5, 6, 7, 8)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many versions"):
            await lookup.find("lying", "9")
        # The event loop's default executor has no part in it.
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 60) == "free"
        registry.may.set()
        assert await asyncio.gather(*asked) == [CANDIDATE, CANDIDATE, None, None, None]

    asyncio.run(ask())
    lookup.close()
    assert registry.asked == {("lying", str(number)): 1 for number in (5, 6, 7, 8)}
