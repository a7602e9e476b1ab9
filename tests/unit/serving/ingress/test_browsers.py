"""Pages of other origins: what a browser asks beforehand, and what its scripts may read; HEAD, which monitors send."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from serving.ingress.access.key_file import KeyFile, new_key
from serving.ingress.app import create_app
from serving.ingress.http.headers import EXPOSED
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World

PAGE = "https://app.example"
KEY, SECRET = new_key("page")
DRAW = "/v1/images/generations"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    KeyFile(keys=(KEY,)).write(path)
    return path


@pytest.fixture(scope="module")
def site(world: World, keys: Path) -> Iterator[httpx2.Client]:
    """A client of an endpoint with keys, which PAGE may use."""
    settings = IngressSettings(keys=keys, cors_origins=("http://localhost:3000", PAGE))
    with (
        serving(create_app(world.service, settings)) as address,
        httpx2.Client(base_url=address, verify=False, timeout=60) as client,
    ):
        yield client


def preflight(client: httpx2.Client, origin: str, **changed: str) -> httpx2.Response:
    return client.options(DRAW, headers={"origin": origin, **PREFLIGHT, **changed})


def test_a_preflight_of_a_named_origin_needs_no_key(site: httpx2.Client) -> None:
    answer = preflight(site, PAGE)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    for origin in (
        "https://other.example",
        "http://app.example",
        f"{PAGE}:8443",
        f"{PAGE}.evil.example",
        "null",
    ):
        refused = preflight(site, origin)
        assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers
    assert preflight(site, PAGE, **{"access-control-request-method": "DELETE"}).status_code == 400


def test_a_page_draws_and_reads_the_headers_and_also_why_it_may_not(site: httpx2.Client) -> None:
    body = {"prompt": LYING, "num_inference_steps": 1}
    headers = {"origin": PAGE, "authorization": f"Bearer {SECRET}"}
    drawn = site.post(DRAW, json=body, headers=headers)
    refused = site.post(DRAW, json=body, headers={**headers, "authorization": "Bearer wrong"})
    mistaken = site.post(DRAW, json={}, headers=headers)
    assert [answer.status_code for answer in (drawn, refused, mistaken)] == [200, 401, 400]
    for answer in (drawn, refused, mistaken):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers["vary"]
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert exposed == list(EXPOSED)
        assert {name for name in answer.headers if name.startswith("x-")} <= set(exposed)
    other = site.post(DRAW, json=body, headers={**headers, "origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_without_origins_no_page_but_the_endpoints_own_is_let_in(address: str) -> None:
    with httpx2.Client(base_url=address, verify=False) as client:
        asked = preflight(client, PAGE)
        assert asked.status_code == 405
        own = client.post("/v1/route", json={"prompt": LYING}, headers={"origin": address})
        assert own.status_code == 200
        for answer in (asked, own):
            assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cors_origins": ("*",), "cors_credentials": True}, "name the origins"),
        *(
            ({"cors_origins": (origin,)}, f'"{origin}" is no origin')
            for origin in (
                "", "app.example", "https://app.example/", "https://App.example", "https://app.example:443", "http://a:80",
                "https://a@app.example", "https://*.example", "https://", "null", "https://a:x", "https://app.example/draw",
                "https://a b",
            )
        ),
        ({"model_aliases": {"gpt-image-1": ""}}, "write another name for a model"),
        ({"model_aliases": {" ": "auto"}}, "write another name for a model"),
        ({"model_aliases": {"lying": "lying"}}, "write another name for a model"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        IngressSettings(**settings)
    assert expected in str(caught.value)


def test_any_page_or_pages_with_cookies_can_be_let_in(world: World) -> None:
    chosen = ("https://a.example:8443", "http://[::1]:3000", "app://obsidian.md")
    for settings, origin, expected in (
        (IngressSettings(cors_origins=("*",)), "https://anyone.example", "*"),
        *((IngressSettings(cors_origins=chosen, cors_credentials=True), each, each) for each in chosen),
    ):
        with (
            serving(create_app(world.service, settings)) as address,
            httpx2.Client(base_url=address, verify=False) as client,
        ):
            for answer in (preflight(client, origin), client.get("/v1/models", headers={"origin": origin})):
                assert answer.status_code == 200
                assert answer.headers["access-control-allow-origin"] == expected
                credentials = answer.headers.get("access-control-allow-credentials")
                assert credentials == ("true" if settings.cors_credentials else None)


def same(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without those that differ from answer to answer."""
    return {name: value for name, value in headers.items() if name not in ("x-request-id", "date")}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200), ("/healthz", 200), ("/readyz", 200), ("/openapi.json", 200), ("/v1/models", 200),
        ("/v1/models/lying", 200), ("/v1/models/nobody", 404), ("/nothing", 404), (DRAW, 405),
    ],
)  # fmt: skip
def test_head_is_answered_as_get_without_the_body(site: httpx2.Client, path: str, status: int) -> None:
    key = {"authorization": f"Bearer {SECRET}"}
    head, get = (site.request(method, path, headers=key) for method in ("HEAD", "GET"))
    assert head.status_code == get.status_code == status
    assert same(head.headers) == same(get.headers)
    assert int(head.headers["content-length"]) == len(get.content) > 0
    assert head.content == b""
    public = path in ("/", "/healthz", "/readyz", "/openapi.json")
    assert site.head(path).status_code == (status if public else 401)
