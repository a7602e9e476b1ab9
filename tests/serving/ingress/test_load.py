"""Many clients, slow clients: each gets an image or the documented error, and afterwards everything is as before."""

import asyncio
import gc
import json
from collections import Counter
from pathlib import Path

import httpx2
import openai
import psutil
import pytest

from serving.ingress.app import create_app
from serving.ingress.settings import IngressSettings
from tests.serving.ingress.endpoint import LYING, World, openai_client, post, serving, small_world, wait_until
from tests.serving.ingress.test_streaming import idle, send


def test_four_hundred_at_once_are_served_or_told_when_to_come_again(tmp_path: Path, heads: Path) -> None:
    with (
        small_world(tmp_path, heads, max_waiting=32) as world,
        serving(create_app(world.service, IngressSettings())) as address,
    ):
        body = {"prompt": LYING, "num_inference_steps": 4, "guidance_scale": 1}
        assert post(address, body).status_code == 200
        before = psutil.Process().memory_info().rss
        for _ in range(2):
            found = asyncio.run(at_once(address, body, 400))
            assert set(found) == {200, 429}, found
            assert found[200] >= 32
            wait_until(lambda: idle(world), 5)
            assert post(address, body).status_code == 200
        gc.collect()
        assert psutil.Process().memory_info().rss - before < 150 * 1024**2


async def at_once(address: str, body: dict[str, object], count: int) -> Counter[int]:
    """Statuses of as many requests; each error has the documented form."""
    limits = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(timeout=120, limits=limits) as client:

        async def ask() -> int:
            answer = await client.post(f"{address}/v1/images/generations", json=body)
            if answer.status_code != 200:
                assert answer.json()["error"]["code"] == "overloaded"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
            return answer.status_code

        return Counter(await asyncio.gather(*(ask() for _ in range(count))))


def test_the_client_raises_a_rate_limit_error_when_too_much_waits(tmp_path: Path, heads: Path) -> None:
    with (
        small_world(tmp_path, heads, max_waiting=1) as world,
        serving(create_app(world.service, IngressSettings())) as address,
        pytest.raises(openai.RateLimitError) as error,
    ):
        openai_client(address).images.generate(prompt=LYING, model="embedded", n=10)
    assert error.value.code == "overloaded"


def test_a_body_that_trickles_in_is_given_up_and_others_are_served_meanwhile(world: World) -> None:
    with serving(create_app(world.service, IngressSettings(body_seconds=1))) as address:
        slow = [send(address, b'{"prompt": "', length=500) for _ in range(50)]
        assert post(address, {"prompt": LYING, "num_inference_steps": 1}).status_code == 200
        for connection in slow:
            answer = connection.makefile("rb").read()
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408")
            assert json.loads(body)["error"]["code"] == "body_timeout"
            connection.close()


def test_an_engine_that_has_stopped_is_503_and_not_ready(tmp_path: Path, heads: Path) -> None:
    with (
        small_world(tmp_path, heads) as world,
        serving(create_app(world.service, IngressSettings())) as address,
        httpx2.Client(base_url=address) as client,
    ):
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"], ready.json()["registry"]["ok"]) == (200, True, True)
        world.engine.close()
        gone = client.get("/readyz")
        assert (gone.status_code, gone.json()["ready"]) == (503, False)
        answer = post(address, {"prompt": LYING})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_failure")
        assert client.get("/healthz").status_code == 200
