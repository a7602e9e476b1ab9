"""Many clients, slow clients: each gets an image or the documented error, and afterwards everything is as before."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import psutil
import pytest

from serving.ingress.app import create_app
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World, idle, openai_client, post, small_world
from tests.support.paused_engine import paused
from tests.support.waiting import wait_until
from tests.unit.serving.ingress.test_streaming import send

DRAWN, WAITING = 2, 4
"""Images that the engine of `crowded` draws together, and that may wait meanwhile."""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Behind an engine with little room."""
    folder = tmp_path_factory.mktemp("crowded")
    with small_world(folder, max_waiting=WAITING, row_buckets=(DRAWN,), slots=DRAWN) as world:
        yield world


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_many_at_once_are_served_or_told_when_to_come_again(crowded: World, count: int) -> None:
    with serving(create_app(crowded.service, IngressSettings())) as address:
        body = {"prompt": LYING, "num_inference_steps": 2, "guidance_scale": 1}
        assert post(address, body).status_code == 200
        before = psutil.Process().memory_info().rss
        for _ in range(2):
            found = asyncio.run(at_once(address, crowded, body, count))
            assert set(found) == {200, 429} and WAITING <= found[200] <= WAITING + DRAWN, found
            wait_until(lambda: idle(crowded))
            assert post(address, body).status_code == 200
        gc.collect()
        assert psutil.Process().memory_info().rss - before < 150 * 1024**2


async def at_once(address: str, world: World, body: dict[str, object], count: int) -> Counter[int]:
    """Statuses of as many requests, none of which is drawn before all others are refused."""
    limits = httpx2.Limits(max_connections=count)
    answered: Counter[int] = Counter()
    async with httpx2.AsyncClient(timeout=240, limits=limits, verify=False) as client:

        async def ask() -> None:
            answer = await client.post(f"{address}/v1/images/generations", json=body)
            if answer.status_code != 200:
                assert answer.json()["error"]["code"] == "overloaded"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
            answered[answer.status_code] += 1

        with paused(world.engine):
            asking = asyncio.gather(*(ask() for _ in range(count)))
            while answered[429] < count - WAITING - DRAWN and not asking.done():
                await asyncio.sleep(0.02)
        await asking
    return answered


def test_the_client_raises_a_rate_limit_error_when_too_much_waits(crowded: World) -> None:
    with (
        serving(create_app(crowded.service, IngressSettings())) as address,
        paused(crowded.engine),
        pytest.raises(openai.RateLimitError) as error,
    ):
        openai_client(address).images.generate(prompt=LYING, model="embedded", n=10)
    assert error.value.code == "overloaded"


def test_a_body_that_trickles_in_is_given_up_and_others_are_served_meanwhile(world: World) -> None:
    with serving(create_app(world.service, IngressSettings(body_seconds=0.5))) as address:
        slow = [send(address, b'{"prompt": "', length=500) for _ in range(10)]
        assert post(address, {"prompt": LYING, "num_inference_steps": 1}).status_code == 200
        for connection in slow:
            answer = connection.makefile("rb").read()
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408")
            assert json.loads(body)["error"]["code"] == "body_timeout"
            connection.close()


def test_an_engine_that_has_stopped_is_503_and_not_ready(tmp_path: Path) -> None:
    with (
        small_world(tmp_path) as world,
        serving(create_app(world.service, IngressSettings())) as address,
        httpx2.Client(base_url=address, verify=False) as client,
    ):
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"], ready.json()["registry"]["ok"]) == (200, True, True)
        world.engine.close()
        gone = client.get("/readyz")
        assert (gone.status_code, gone.json()["ready"]) == (503, False)
        answer = post(address, {"prompt": LYING})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_failure")
        assert client.get("/healthz").status_code == 200
