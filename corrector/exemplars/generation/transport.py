"""HTTP with servers that are not trusted: bounded in bytes and in seconds; redirects only for images.

Connections are direct: proxies of the environment are not used, so that the address that was checked is the one that is
connected to.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}


class NotSentError(Exception):
    """The server was not reached and received no request."""


class NoAnswerError(Exception):
    """The request was sent, and no whole answer came back."""


class UnusableUrlError(Exception):
    """There is no image at a URL, or the URL must not be fetched."""


@dataclass(frozen=True)
class Response:
    """An answer, whole. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def exchange(
    method: str,
    url: str,
    *,
    seconds: float,
    max_bytes: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    address: str | None = None,
) -> Response:
    """Send one request and return its answer; redirects are returned, not followed.

    Args:
        seconds: From the start of the connection to the last byte of the answer, however slowly bytes arrive.
        max_bytes: Size of the answer's body.
        address: IP address to connect to in place of the host's.

    Raises:
        NotSentError: The server was not reached, or its certificate is not valid.
        NoAnswerError: The answer did not come in time, was broken off, is too large or is not HTTP.
    """
    parts = urlsplit(url)
    host, port = origin(parts)
    expired = threading.Event()
    try:
        opened = socket.create_connection((address or host, port), timeout=seconds)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            opened = context.wrap_socket(opened, server_hostname=host, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        raise NotSentError(_reason(error)) from None
    with closing(opened):

        def expire() -> None:
            expired.set()
            with suppress(OSError):
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            if isinstance(opened, ssl.SSLSocket):
                _shake_hands(opened)
            return _answer(opened, method, parts, body, headers or {}, max_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = expired.is_set() or isinstance(error, TimeoutError)
            raise NoAnswerError(f"no answer within {seconds:g} s" if late else _reason(error)) from None
        finally:
            timer.cancel()


def download(url: str, *, api_url: str, seconds: float, max_bytes: int) -> bytes:
    """The bytes at the URL of an image that the API at `api_url` names; up to `MAX_REDIRECTS` redirects are followed.

    Every URL on the way must be http or https (https where the API's is), and its host must have public addresses only,
    unless host and port are the API's own.

    Raises:
        UnusableUrlError: The URL is not permitted or leads nowhere; another try would not help.
        NotSentError, NoAnswerError: The server did not answer, or said that it cannot now.
    """
    for _ in range(MAX_REDIRECTS + 1):
        address = _permitted_address(url, api_url)
        response = exchange("GET", url, seconds=seconds, max_bytes=max_bytes, address=address)
        if response.status == 200:
            return response.body
        if response.status in (408, 429) or response.status >= 500:
            raise NoAnswerError(f"status {response.status}")
        if response.status not in _REDIRECTS or "location" not in response.headers:
            raise UnusableUrlError(f"status {response.status}")
        url = urljoin(url, response.headers["location"])
    raise UnusableUrlError(f"more than {MAX_REDIRECTS} redirects")


def origin(parts: SplitResult) -> tuple[str, int]:
    """Host and port of a URL.

    Raises:
        ValueError: It is not an http or https URL with a host and without a password.
    """
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("is not an http or https URL")
    return parts.hostname, parts.port or _PORTS[parts.scheme]


def _permitted_address(url: str, api_url: str) -> str | None:
    """The public IP address to connect to; None for the API's own host and port."""
    api = urlsplit(api_url)
    try:
        parts = urlsplit(url)
        host, port = origin(parts)
    except ValueError as error:
        raise UnusableUrlError(str(error)) from None
    if api.scheme == "https" and parts.scheme != "https":
        raise UnusableUrlError("is not encrypted, though the API is")
    if (host, port) == origin(api):
        return None
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, ValueError) as error:
        raise NotSentError(_reason(error)) from None
    for address in map(ipaddress.ip_address, found):
        if not address.is_global or address.is_multicast:
            raise UnusableUrlError("leads to a private address, which is not fetched")
    return found[0]


def _shake_hands(opened: ssl.SSLSocket) -> None:
    try:
        opened.do_handshake()
    except (OSError, ValueError) as error:
        raise NotSentError(_reason(error)) from None


def _answer(
    opened: socket.socket,
    method: str,
    parts: SplitResult,
    body: bytes | None,
    headers: Mapping[str, str],
    max_bytes: int,
) -> Response:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(*origin(parts))
    connection.sock = opened
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request(method, target, body, {"Connection": "close", **headers})
    with connection.getresponse() as response:
        content = response.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ValueError(f"the answer is larger than {max_bytes / 2**20:.0f} MiB")
        if response.length:
            raise ValueError("the answer was broken off")
        return Response(response.status, {k.lower(): v for k, v in response.getheaders()}, content)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
