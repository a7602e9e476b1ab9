"""The HTTP client: whole answers in bounded size and time, or the reason why not."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from corrector import http_client
from corrector.http_client import (
    CertificateError,
    LargeAnswerError,
    LateAnswerError,
    NoAnswerError,
    NotSentError,
    PrivateAddressError,
    Response,
    UnknownHostError,
    UnusableUrlError,
    exchange,
    fetch,
)
from tests.support.archive_server import Web, serving, write_certificate

OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def answering(answer: bytes, *, silent: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a server that sends `answer` to one client, then closes the connection or falls silent; what it received."""
    received: list[bytes] = []
    closing = Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_one() -> None:
            connection, _ = server.accept()
            with connection:
                received.append(request(connection))
                connection.sendall(answer)
                if silent:
                    closing.wait()

        thread = Thread(target=answer_one, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", received
        finally:
            closing.set()
            thread.join()


def request(connection: socket.socket) -> bytes:
    """What a client sends until its request is whole or it closes the connection."""
    received = b""
    with connection.makefile("rb") as stream:
        while (line := stream.readline()).strip():
            received += line
        length = re.search(rb"Content-Length: (\d+)", received)
        return received + line + stream.read(int(length[1]) if length else 0)


def get(url: str, *, seconds: float = 30, max_bytes: int = 1000, **options: Any) -> Response:
    return exchange("GET", url, seconds=seconds, max_bytes=max_bytes, **options)


def lead_to(monkeypatch: pytest.MonkeyPatch, port: int, *addresses: str) -> None:
    """Lets the machine's resolver give these addresses for any name."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_a_request_is_sent_and_its_answer_returned_whole() -> None:
    with answering(OK + b"X-Request-Id: 7\r\nContent-Length: 2\r\n\r\nok") as (url, received):
        response = exchange(
            "POST", f"{url}/v1?a=b", seconds=30, max_bytes=2, body=b"{}", headers={"X-Key": "secret"}
        )
    assert response == Response(200, {"x-request-id": "7", "content-length": "2"}, b"ok")
    head, body = received[0].split(b"\r\n\r\n")
    lines = head.splitlines()
    assert (lines[0], body) == (b"POST /v1?a=b HTTP/1.1", b"{}")
    assert {b"X-Key: secret", b"Content-Length: 2", f"Host: {url.partition('//')[2]}".encode()} < set(lines)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OK + b"Content-Length: 10\r\n\r\n12345", "cut off after 5 of 10 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", "cut off"),
        (b"220 mail.example ESMTP\r\n", "cut off"),
        (b"", "cut off"),
    ],
)
def test_half_an_answer_is_none(answer: bytes, reason: str) -> None:
    with answering(answer) as (url, _), pytest.raises(NoAnswerError, match=reason):
        get(url)


@pytest.mark.parametrize("begin", [b"", OK, OK + b"Content-Length: 9\r\n\r\n1", OK + b"\r\n1"])
def test_an_answer_that_does_not_end_is_late(begin: bytes, tmp_path: Path) -> None:
    for file in (None, tmp_path / "body"):
        with answering(begin, silent=True) as (url, _), pytest.raises(LateAnswerError, match=r"in 0\.2 s"):
            get(url, seconds=0.2, file=file)


@pytest.mark.parametrize("head", [b"Content-Length: 11\r\n", b""])
def test_too_large_an_answer_is_not_read(head: bytes) -> None:
    answer = OK + head + b"\r\n" + bytes(11)
    with answering(answer) as (url, _), pytest.raises(LargeAnswerError, match="larger than"):
        get(url, max_bytes=10)
    with answering(answer) as (url, _):
        assert get(url, max_bytes=11).body == bytes(11)


def test_a_body_is_written_to_a_file_if_the_status_is_200(tmp_path: Path) -> None:
    with serving() as web:
        web.bodies["/a"] = bytes(500)
        assert get(f"{web.url}/a", file=tmp_path / "a").body == b""
        assert (tmp_path / "a").read_bytes() == bytes(500)
        assert get(f"{web.url}/b", file=tmp_path / "b").status == 404
        assert not (tmp_path / "b").exists()
        with pytest.raises(FileNotFoundError):
            get(f"{web.url}/a", file=tmp_path / "missing" / "a")


def test_a_server_that_was_not_reached_received_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotSentError, match="Connection refused"):
        get(f"http://127.0.0.1:{port}")
    for name in ("nowhere.invalid", f"{'a' * 64}.example"):
        with pytest.raises(UnknownHostError):
            get(f"http://{name}")


def test_nothing_is_sent_to_a_server_without_a_valid_certificate(tmp_path: Path) -> None:
    with serving(write_certificate(tmp_path / "server.pem", "localhost")) as web:
        with pytest.raises(CertificateError, match="self-signed certificate"):
            get(web.url)
        assert web.requests == []


def test_a_handshake_that_does_not_end_sends_nothing() -> None:
    with answering(b"", silent=True) as (url, _), pytest.raises(NotSentError, match=r"within 0\.2 s"):
        get(url.replace("http:", "https:"), seconds=0.2)


def test_the_next_address_is_tried_where_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as web:
        web.bodies["/a"] = b"ok"
        lead_to(monkeypatch, web.port, "127.0.0.2", "127.0.0.1")
        assert get(f"http://server.example:{web.port}/a").body == b"ok"
        assert web.requests == [(f"server.example:{web.port}", "/a")]


def test_all_addresses_of_a_public_host_are_public(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as web:
        lead_to(monkeypatch, web.port, "93.184.215.14", "127.0.0.1")
        with pytest.raises(PrivateAddressError) as raised:
            get(f"http://server.example:{web.port}/a", public=True)
        assert (raised.value.address, web.requests) == ("127.0.0.1", [])


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a", "http://me:secret@127.0.0.1/a", "http:///a", "a"])
def test_urls_without_a_server_or_with_a_password_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        get(url)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        server.bodies["/a"] = b"ok"
        server.redirects = {"/first": "/second", "/second": "/a", "/odd": "http://[/"}
        yield server


def test_redirects_are_followed_and_each_url_is_checked(web: Web) -> None:
    checked: list[str] = []

    def check(url: str) -> bool:
        checked.append(url.removeprefix(web.url))
        return False

    def fetched(path: str, redirects: int) -> Response:
        return fetch(
            f"{web.url}{path}",
            check=check,
            redirects=redirects,
            seconds=30,
            max_bytes=1000,
            headers={"X": "y"},
        )

    assert fetched("/first", 2).body == b"ok"
    assert checked == ["/first", "/second", "/a"]
    assert fetched("/first", 1).location == "/a"
    with pytest.raises(UnusableUrlError, match="redirected to what is no URL"):
        fetched("/odd", 1)


def test_a_url_that_is_refused_on_the_way_is_not_requested(web: Web) -> None:
    def check(url: str) -> bool:
        if url.endswith("/second"):
            raise UnusableUrlError(url)
        return False

    with pytest.raises(UnusableUrlError, match="/second"):
        fetch(f"{web.url}/first", check=check, redirects=2, seconds=30, max_bytes=1000)
    assert [target for _, target in web.requests] == ["/first"]
    with pytest.raises(PrivateAddressError):
        fetch(f"{web.url}/a", check=lambda _: True, redirects=2, seconds=30, max_bytes=1000)


def test_the_deadline_is_that_of_all_redirects_together(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def exchange_and_note(*arguments: Any, seconds: float, **options: Any) -> Response:
        given.append(seconds)
        return exchange(*arguments, seconds=seconds, **options)

    monkeypatch.setattr(http_client, "exchange", exchange_and_note)
    fetch(f"{web.url}/first", check=lambda _: False, redirects=2, seconds=30, max_bytes=1000)
    assert 30 >= given[0] > given[1] > given[2] > 0
