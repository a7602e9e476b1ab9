"""Requests as other people's clients, pages and monitors send them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from serving.ingress.app import create_app
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World, small_world

PAGE = "https://app.example"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with small_world(tmp_path_factory.mktemp("world")) as world:
        yield world


@contextmanager
def client_of(world: World, settings: IngressSettings) -> Iterator[httpx2.Client]:
    with (
        serving(create_app(world.service, settings)) as address,
        httpx2.Client(base_url=address, verify=False, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[httpx2.Client]:
    """Of an endpoint as it comes."""
    with client_of(world, IngressSettings()) as client:
        yield client


@pytest.fixture(scope="module")
def configured(world: World) -> Iterator[httpx2.Client]:
    """Of an endpoint that lets a page in and knows a client's name for the base."""
    settings = IngressSettings(cors_origins=(PAGE,), model_aliases={"gpt-image-1": "auto"})
    with client_of(world, settings) as client:
        yield client


def draw(client: httpx2.Client, fields: dict[str, Any]) -> httpx2.Response:
    return client.post("/v1/images/generations", json={"prompt": LYING, "num_inference_steps": 1, **fields})


@pytest.mark.parametrize(
    ("report", "fields", "headers"),
    [
        ("vector#7453", {"n": 1.0, "seed": 7.0}, {"x-seed": "7"}),
        ("vector#7453", {"num_inference_steps": 2.0, "guidance_scale": 4.0}, {}),
        ("pandas#36912", {"n": None, "seed": None, "size": None, "style": None}, {}),
        ("langchain-community#177", {"quality": "standard"}, {"x-ignored-parameters": "quality"}),
        ("langchain-community#177", {"quality": "standard", "style": "vivid"}, {"x-ignored-parameters": "quality, style"}),
        ("langchain-community#177", {"quality": "auto", "moderation": "auto", "background": "auto"}, {}),
        ("practice", {"prompt": "a person lying\u200b on the grass"}, {"x-route": "exact", "x-adapter": "lying"}),
        ("practice", {"prompt": "A person, lying on the grass."}, {"x-route": "exact", "x-adapter": "lying"}),
    ],
)  # fmt: skip
def test_it_is_drawn(
    client: httpx2.Client, report: str, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    answer = draw(client, fields)
    assert answer.status_code == 200, (report, answer.text)
    assert {name: answer.headers.get(name) for name in headers} == headers
    if "x-ignored-parameters" not in headers:
        assert "x-ignored-parameters" not in answer.headers


@pytest.mark.parametrize(
    ("report", "fields", "status", "param", "message"),
    [
        ("Newelle#430", {"model": "gpt-image-1"}, 404, "model", 'model: no adapter "gpt-image-1" is served'),
        ("vercel/ai#17056", {"quality": "hd"}, 400, "quality", "choose num_inference_steps and size"),
        ("langchain-community#177", {"response_format": "url"}, 400, "response_format", "keeps no images to link to"),
        ("practice", {"background": "transparent"}, 400, "background", "the base draws opaque images"),
        ("diffuzers#12", {"seed": -1}, 400, "seed", "found -1; leave it out for a random one"),
        ("diffuzers#12", {"size": "64X64"}, 400, "size", 'found "64X64"; did you mean "64x64"?'),
        ("cortex.t#51", {"steps": 30}, 400, "steps", "did you mean num_inference_steps?"),
        ("cortex.t#51", {"cfg_scale": 7}, 400, "cfg_scale", "did you mean guidance_scale?"),
        ("cortex.t#51", {"width": 64}, 400, "width", "did you mean size, WIDTHxHEIGHT in pixels?"),
        ("vector#7453", {"n": 1.5}, 400, "n", "expected a whole number from 1 to 10, found 1.5"),
        ("pandas#36912", {"prompt": None}, 400, "prompt", "prompt is missing"),
    ],
)  # fmt: skip
def test_it_is_refused_for_what_was_sent(
    client: httpx2.Client, report: str, fields: dict[str, Any], status: int, param: str, message: str
) -> None:
    answer = draw(client, fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), (report, error)
    assert message in error["message"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/v1/models", "/openapi.json"])
def test_monitors_ask_by_head(client: httpx2.Client, path: str) -> None:
    """canopy#284, fastapi-health#18, freqtrade#12839."""
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(client.get(path).content)


def test_a_page_asks_beforehand_whether_it_may_draw(client: httpx2.Client, configured: httpx2.Client) -> None:
    """sonar#434."""
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    let_in, refused = (each.options("/v1/images/generations", headers=asked) for each in (configured, client))
    assert (let_in.status_code, let_in.headers["access-control-allow-origin"]) == (200, PAGE)
    assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (405, None)


def test_a_clients_own_name_of_a_model_is_configured(configured: httpx2.Client) -> None:
    """Newelle#430, vercel/ai#17056."""
    answer = draw(configured, {"model": "gpt-image-1", "quality": "auto"})
    assert (answer.status_code, answer.headers["x-adapter"]) == (200, "lying")
