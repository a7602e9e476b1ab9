"""Streams: previews and the image as events, errors on the way, and clients that stop listening."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

import httpx2
import numpy as np
import openai
import pytest

from tests.support.ingress import LYING, World, idle, openai_client, pixels, post
from tests.support.paused_engine import paused
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _left_idle(world: World) -> Iterator[None]:
    """Whatever a test does, the engine has nothing left to do after it."""
    yield
    wait_until(lambda: idle(world))


def test_previews_come_nearer_to_the_image_that_is_drawn_without_them(address: str) -> None:
    fields = {"num_inference_steps": 8, "seed": 3}
    stream = openai_client(address).images.generate(
        prompt=LYING, model="embedded", stream=True, partial_images=3, extra_body=fields
    )
    *partial, completed = list(stream)
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 3
    assert [getattr(event, "partial_image_index", None) for event in partial] == [0, 1, 2]
    assert completed.type == "image_generation.completed"
    assert (completed.size, completed.output_format, completed.quality) == ("64x64", "png", "auto")
    assert completed.usage.output_tokens == 64
    assert abs(completed.created_at - time.time()) < 60
    image = pixels(completed.b64_json).astype(int)
    distances = [np.abs(pixels(event.b64_json).astype(int) - image).mean() for event in partial]
    assert distances == sorted(distances, reverse=True)
    whole = post(address, {"prompt": LYING, **fields}).json()
    assert (pixels(whole["data"][0]["b64_json"]) == image).all()


def test_a_stream_tells_where_its_image_comes_from(address: str) -> None:
    answer = post(
        address, {"prompt": LYING, "stream": True, "num_inference_steps": 2, "output_format": "webp"}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-adapter"] == "lying"
    assert "x-queue-ms" not in answer.headers
    (event,) = [block for block in answer.text.split("\n\n") if block]
    name, data = event.split("\n")
    assert name == "event: image_generation.completed"
    found = json.loads(data.removeprefix("data: "))
    assert found["output_format"] == "webp"
    assert found["provenance"]["adapter_version"] == "1"
    assert str(found["provenance"]["seed"]) == answer.headers["x-seed"]
    assert found["provenance"]["denoise_ms"] > 0


def test_what_fails_before_the_first_event_has_its_own_status(address: str) -> None:
    client = openai_client(address)
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt=LYING, model="nobody", stream=True)
    with pytest.raises(openai.InternalServerError) as down:
        client.images.generate(prompt="two robots boxing", model="embedded", stream=True)
    assert down.value.code == "adapter_unavailable"
    answer = post(address, {"prompt": LYING, "stream": True, "timeout": 0.05, "num_inference_steps": 100})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (408, "false")


def is_past(deadline: float) -> bool:
    return time.monotonic() > deadline


def test_what_fails_on_the_way_is_an_event_that_the_client_raises(address: str, world: World) -> None:
    # The first preview comes after two of eight steps; then the engine stands still until the time is up.
    body = {"prompt": LYING, "stream": True, "partial_images": 3, "num_inference_steps": 8}
    for seconds in (1, 4, 16):
        deadline = time.monotonic() + seconds
        with (
            paused(world.engine, after=3) as pause,
            streamed(address, body | {"timeout": seconds}) as answer,
        ):
            if answer.status_code != 200:
                continue  # a machine so busy that two steps took longer
            lines = answer.iter_lines()
            assert next(lines) == "event: image_generation.partial_image"
            wait_until(partial(is_past, deadline))
            pause.go_on()
            text = "\n".join(lines)
        break
    else:
        pytest.fail("the time was always up before the first preview")
    event, data = text.strip().split("\n")[-2:]
    assert event == "event: error"
    error = json.loads(data.removeprefix("data: "))["error"]
    assert (error["type"], error["code"], error["param"]) == ("timeout_error", "deadline_missed", "timeout")


def test_a_client_that_stops_listening_to_a_stream_stops_its_drawing(address: str, world: World) -> None:
    body = {"prompt": LYING, "stream": True, "partial_images": 3, "num_inference_steps": 8}
    with paused(world.engine, after=3) as pause:
        with streamed(address, body) as answer:
            lines = answer.iter_lines()  # its end would be the client's
            assert next(lines) == "event: image_generation.partial_image"
            assert not idle(world)
        wait_until(lambda: not world.engine._requests)
        pause.go_on()
        wait_until(lambda: idle(world))
        assert pause.steps < 8


@pytest.mark.parametrize("body", [{"n": 1}, {"n": 8}, {"stream": True}], ids=str)
def test_a_client_that_vanishes_while_it_waits_frees_the_engine(
    address: str, world: World, body: dict[str, object]
) -> None:
    body = {"prompt": LYING, "num_inference_steps": 8, **body}
    with paused(world.engine, after=1) as pause:
        connection = send(address, json.dumps(body).encode())
        wait_until(lambda: world.engine.stats().drawing > 0)
        connection.close()
        wait_until(lambda: not world.engine._requests)
        pause.go_on()
        wait_until(lambda: idle(world))
        assert pause.steps < 8


def test_a_client_that_vanishes_in_the_middle_of_its_body_leaves_nothing(address: str, world: World) -> None:
    for _ in range(5):
        connection = send(address, b'{"prompt": "a', length=1000)
        connection.close()
    assert post(address, {"prompt": LYING, "num_inference_steps": 1}).status_code == 200


@contextmanager
def streamed(address: str, body: dict[str, object]) -> Iterator[httpx2.Response]:
    """The answer as it comes."""
    with (
        httpx2.Client(timeout=240, verify=False) as client,
        client.stream("POST", f"{address}/v1/images/generations", json=body) as answer,
    ):
        yield answer


def send(address: str, body: bytes, length: int | None = None) -> socket.socket:
    """A connection on which a request was sent; `length` other than the body's announces more of it."""
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection
