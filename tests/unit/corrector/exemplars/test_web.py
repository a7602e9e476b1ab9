"""Archives on the web: fetched from public addresses, in bounded size and time, and their signatures told to nobody."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corrector.errors import UserError
from corrector.exemplars.sources import ResolvedSource, SourceLimits, resolve_source
from corrector.prompts import FailingPrompt
from corrector.settings import Settings
from tests.support.archive_server import Web, serving, write_certificate
from tests.support.archives import PICTURES, tarred, zipped

ALLOWED = Settings(cache=Path(), storage="", tracking_uri=None, exemplar_roots=(), allow_private_urls=True)
PUBLIC = "93.184.215.14"


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def resolved(
    url: str, cache: Path, *, allowed: bool = True, limits: SourceLimits | None = None
) -> ResolvedSource:
    environment = replace(ALLOWED, cache=cache, allow_private_urls=allowed)
    return resolve_source(url, cache, settings=environment, limits=limits)


def refusal(url: str, cache: Path, *, allowed: bool = True, limits: SourceLimits | None = None) -> str:
    """Why a URL is refused; nothing is left in the cache."""
    with pytest.raises(UserError) as raised:
        resolved(url, cache, allowed=allowed, limits=limits)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert "secret" not in str(raised.value)
    return str(raised.value)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Lets the machine's resolver give these addresses, one at each question; returns the names that it is asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 0, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_an_archive_is_fetched_and_what_it_holds_decides_its_kind(web: Web, cache: Path) -> None:
    web.bodies = {"/lying": zipped(PICTURES), "/lying.zip": tarred(PICTURES, mode="w:gz")}
    for path in web.bodies:
        folder = resolved(f"{web.url}{path}?X-Signature=secret", cache).folder
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == PICTURES
    assert web.requests[0] == (f"127.0.0.1:{web.port}", "/lying?X-Signature=secret")


def test_a_signature_is_sent_and_neither_told_nor_recorded(web: Web, cache: Path) -> None:
    url = f"{web.url}/lying.zip?X-Amz-Signature=secret"
    assert refusal(url, cache) == (
        f'exemplars: "{web.url}/lying.zip?…": may not be read; if it is a signed URL, it may have expired: make a new one '
        "(the server answered 403)"
    )
    web.bodies["/lying.zip"] = zipped(PICTURES)
    assert resolved(url, cache).name == f"{web.url}/lying.zip?…"
    prompt = FailingPrompt(prompt="a", exemplars=url, guard_prompts=("b",))
    assert prompt.model_dump()["exemplars"] == f"{web.url}/lying.zip?…"
    assert "secret" not in f"{prompt!r} {prompt.model_dump_json()}"
    assert prompt.exemplars == url


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
    ],
)
def test_private_addresses_are_refused(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, address)
    told = refusal("https://pictures.example/lying.zip?X=secret", cache, allowed=False)
    assert f'leads to "pictures.example", which has the private address {address}' in told
    assert "CORRECTOR_ALLOW_PRIVATE_URLS=1" in told


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    def refused(_: socket.socket, address: tuple[str, int]) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", refused)
        asked = resolving(patch, PUBLIC, "127.0.0.1")
        url = f"https://pictures.example:{web.port}/lying.zip"
        assert "does not answer (Connection refused)" in refusal(url, cache, allowed=False)
    assert (asked, connected, web.requests) == (["pictures.example"], [PUBLIC], [])


def test_the_server_is_told_the_name_and_not_the_address(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.bodies["/lying.zip"] = zipped(PICTURES)
    asked = resolving(monkeypatch, "127.0.0.1", "127.0.0.2")
    resolved(f"http://pictures.example:{web.port}/lying.zip", cache)
    assert web.requests == [(f"pictures.example:{web.port}", "/lying.zip")]
    assert asked == ["pictures.example"]


def test_http_is_refused(web: Web, cache: Path) -> None:
    assert "use https://, or set CORRECTOR_ALLOW_PRIVATE_URLS=1" in refusal(
        f"{web.url}/lying.zip", cache, allowed=False
    )
    assert web.requests == []


def test_a_redirect_is_followed(web: Web, cache: Path) -> None:
    web.bodies["/there/lying.zip"] = zipped(PICTURES)
    web.redirects["/lying.zip"] = "there/lying.zip"
    assert len(list(resolved(f"{web.url}/lying.zip", cache).folder.iterdir())) == len(PICTURES)


def test_redirects_elsewhere_and_loops_are_refused(web: Web, cache: Path) -> None:
    web.redirects = {
        "/loop": "/loop?X=secret",
        "/file": "file:///etc/passwd",
        "/key": "http://me:secret@127.0.0.1/",
        "/odd": "http://[/",
    }
    assert "was redirected more than 5 times" in refusal(f"{web.url}/loop", cache)
    assert len(web.requests) == 6
    assert "which is no web address" in refusal(f"{web.url}/file", cache)
    assert "leads to an address that is not fetched" in refusal(f"{web.url}/key", cache)
    assert "was redirected to what is no URL" in refusal(f"{web.url}/odd", cache)


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server whose certificate, for outside.example, this machine trusts; any address leads to it."""
    certificate = write_certificate(tmp_path / "server.pem", "outside.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    connect = socket.socket.connect
    with serving(certificate) as server:
        server.bodies["/lying.zip"] = zipped(PICTURES)
        monkeypatch.setattr(socket.socket, "connect", lambda raw, _: connect(raw, ("127.0.0.1", server.port)))
        yield server


def test_a_public_host_is_known_by_its_certificate(
    secure: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, PUBLIC)
    found = resolved(f"https://outside.example:{secure.port}/lying.zip", cache, allowed=False)
    assert len(list(found.folder.iterdir())) == len(PICTURES)
    shutil.rmtree(cache)
    told = refusal(f"https://other.example:{secure.port}/lying.zip", cache, allowed=False)
    assert "has no certificate for other.example" in told


def test_a_public_host_cannot_lead_to_a_private_address(
    secure: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.redirects = {
        "/in.zip": f"https://inside.example:{secure.port}/lying.zip",
        "/plain.zip": "http://outside.example/lying.zip",
    }
    asked = resolving(monkeypatch, PUBLIC, "127.0.0.1")
    told = refusal(f"https://outside.example:{secure.port}/in.zip", cache, allowed=False)
    assert 'leads to "inside.example", which has the private address 127.0.0.1' in told
    assert asked == ["outside.example", "inside.example"]
    assert [target for _, target in secure.requests] == ["/in.zip"]
    resolving(monkeypatch, PUBLIC)
    told = refusal(f"https://outside.example:{secure.port}/plain.zip", cache, allowed=False)
    assert "leads to an address that is not fetched" in told


def test_a_server_that_falls_silent_over_tls_is_given_up(
    secure: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, PUBLIC)
    secure.unending.add("/lying.zip")
    url = f"https://outside.example:{secure.port}/lying.zip"
    assert "took longer than 1 s" in refusal(url, cache, allowed=False, limits=SourceLimits(seconds=1))


def test_too_large_a_body_is_refused_by_its_header_or_while_it_comes(web: Web, cache: Path) -> None:
    web.bodies["/lying.zip"] = zipped(PICTURES)
    small = SourceLimits(source_bytes=100)
    assert "is larger than" in refusal(f"{web.url}/lying.zip", cache, limits=small)
    web.claimed["/lying.zip"] = 50
    assert "is cut off or damaged" in refusal(f"{web.url}/lying.zip", cache, limits=small)


def test_a_body_that_is_cut_off_is_refused(web: Web, cache: Path) -> None:
    web.bodies["/lying.zip"] = zipped(PICTURES)
    web.claimed["/lying.zip"] = 10**6
    assert "was cut off after" in refusal(f"{web.url}/lying.zip", cache)


def test_a_server_that_never_ends_is_given_up(web: Web, cache: Path) -> None:
    web.unending.add("/lying.zip")
    told = refusal(f"{web.url}/lying.zip", cache, limits=SourceLimits(seconds=0.2))
    assert "took longer than 0.2 s; try again, or fetch the archive" in told


def test_a_web_page_is_no_archive(web: Web, cache: Path) -> None:
    web.bodies["/lying.zip"] = b"\n<!DOCTYPE html><title>Sign in</title>"
    assert "is a web page and no archive; open the address in a browser" in refusal(
        f"{web.url}/lying.zip", cache
    )
    assert "is not there; check the URL (the server answered 404)" in refusal(f"{web.url}/other.zip", cache)
    assert "has the unknown host" in refusal("https://nowhere.invalid/lying.zip", cache)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}),
        (
            {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"},
            {"Last-Modified": "Tue, 03 Nov 2026 10:00:00 GMT"},
        ),
    ],
)
def test_an_archive_is_downloaded_again_when_it_was_modified(
    web: Web, cache: Path, before: dict[str, str], after: dict[str, str]
) -> None:
    url = f"{web.url}/lying.zip?X-Signature=secret"
    web.bodies["/lying.zip"], web.validators["/lying.zip"] = zipped(PICTURES), before
    first = resolved(url, cache)
    assert resolved(url, cache) == first
    assert web.statuses == [200, 304]
    web.bodies["/lying.zip"] = zipped(dict(list(PICTURES.items())[:3]))
    web.validators["/lying.zip"] = after
    second = resolved(url, cache)
    assert len(list(second.folder.iterdir())) == 3
    assert resolved(url, cache) == second
    assert web.statuses == [200, 304, 200, 304]
    assert "secret" not in "".join(str(path) + path.read_text("latin-1") for path in cache.rglob("*.json"))


def test_an_archive_without_etag_and_time_is_always_downloaded(web: Web, cache: Path) -> None:
    web.bodies["/lying.zip"], web.validators["/lying.zip"] = zipped(PICTURES), {"ETag": '"1"'}
    resolved(f"{web.url}/lying.zip", cache)
    del web.validators["/lying.zip"]
    first = resolved(f"{web.url}/lying.zip", cache)
    assert resolved(f"{web.url}/lying.zip", cache) == first
    assert web.statuses == [200, 200, 200]


def test_an_archive_that_is_no_longer_kept_is_downloaded(web: Web, cache: Path) -> None:
    web.bodies["/lying.zip"], web.validators["/lying.zip"] = zipped(PICTURES), {"ETag": '"1"'}
    first = resolved(f"{web.url}/lying.zip", cache)
    shutil.rmtree(first.folder.parent)
    assert len(list(resolved(f"{web.url}/lying.zip", cache).folder.iterdir())) == len(PICTURES)
    assert web.statuses == [200, 200]
