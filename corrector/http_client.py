"""A client for HTTP servers that are not trusted: every answer is bounded in bytes and in seconds.

Connections are direct: proxies of the environment are not used. A host's name is looked up once for a request, and the
connection goes to one of the addresses found, so a name that leads elsewhere afterwards changes nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

CONNECT_SECONDS = 10.0
"""For the connection to one address."""

_Address: TypeAlias = tuple[int, int, int, tuple[Any, ...]]
"""Family, type, protocol and address, as `socket` takes them."""
_CHUNK = 2**16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)


class NotSentError(Exception):
    """The server was not reached and received no request."""


class UnknownHostError(NotSentError):
    """The host's name has no address."""


class CertificateError(NotSentError):
    """The server's certificate is not valid for the host."""


class NoAnswerError(Exception):
    """The request was sent, and no whole answer came back."""


class LateAnswerError(NoAnswerError):
    """The answer did not come in time."""


class LargeAnswerError(NoAnswerError):
    """The answer's body is too large."""


class UnusableUrlError(Exception):
    """A URL must not be fetched; another try would not help."""


class PrivateAddressError(UnusableUrlError):
    """A host that must have public addresses has a private one.

    Attributes:
        address: The private one.
    """

    def __init__(self, address: str) -> None:
        super().__init__("leads to a private address, which is not fetched")
        self.address = address


@dataclass(frozen=True)
class Response:
    """An answer, whole. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def location(self) -> str | None:
        """Where a redirect leads; None for other answers."""
        return self.headers.get("location") or None if self.status in _REDIRECTS else None


def exchange(
    method: str,
    url: str,
    *,
    seconds: float,
    max_bytes: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    public: bool = False,
    file: Path | None = None,
) -> Response:
    """Send one request and return its answer; redirects are returned, not followed.

    Args:
        url: http or https, with a host and without a password; see `origin`.
        seconds: From the start of the connection to the last byte of the answer, however slowly bytes arrive.
        max_bytes: Size of the answer's body.
        public: Whether all addresses of the host must be public.
        file: Where the body is written to in place of `Response.body` if the status is 200; other bodies are not read.

    Raises:
        NotSentError: The server was not reached, or its certificate is not valid.
        NoAnswerError: The answer did not come in time, was broken off, is too large or is not HTTP.
        PrivateAddressError: `public`, and the host has an address that is not.
        OSError: `file` cannot be written.
    """
    parts = urlsplit(url)
    host, port = origin(parts)
    deadline = _Deadline(seconds)
    with closing(_connected(parts, deadline, public=public)) as opened, deadline.shuts(opened):
        if isinstance(opened, ssl.SSLSocket):
            _shake_hands(opened, deadline)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = opened
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        own = {"Host": parts.netloc, "Connection": "close", "User-Agent": "prompt-corrector"}
        with deadline.explained():
            connection.request(method, target, body, {**own, **(headers or {})})
            response = connection.getresponse()
        with response:
            content = b""
            if file is None:
                content = b"".join(_chunks(response, max_bytes, deadline))
            elif response.status == 200:
                with file.open("wb") as written:
                    written.writelines(_chunks(response, max_bytes, deadline))
            return Response(response.status, {k.lower(): v for k, v in response.getheaders()}, content)


def fetch(
    url: str,
    *,
    check: Callable[[str], bool],
    redirects: int,
    seconds: float,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Response:
    """GET a URL and follow up to `redirects` redirects; one redirect more is returned as the answer.

    Args:
        check: Called with each URL on the way before its host is looked up. Raises if it is none for `exchange` or must
            not be fetched, and says whether all addresses of its host must be public.
        seconds: For all requests together.
        headers: Sent to each server on the way.

    Raises:
        UnusableUrlError: A redirect leads to what is no URL, or to a private address where it must be public.
        NotSentError, NoAnswerError, OSError: As `exchange`.
    """
    end = time.monotonic() + seconds
    for left in range(redirects, -1, -1):
        public = check(url)
        try:
            response = exchange(
                "GET",
                url,
                seconds=end - time.monotonic(),
                max_bytes=max_bytes,
                headers=headers,
                public=public,
                file=file,
            )
        except LateAnswerError:
            raise LateAnswerError(f"no answer within {seconds:g} s") from None
        if response.location is None or not left:
            break
        try:
            url = urljoin(url, response.location)
        except ValueError:
            raise UnusableUrlError("was redirected to what is no URL") from None
    return response


def origin(parts: SplitResult) -> tuple[str, int]:
    """Host and port of a URL.

    Raises:
        ValueError: It is not an http or https URL with a host and without a password.
    """
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("is not an http or https URL")
    return parts.hostname, parts.port or _PORTS[parts.scheme]


class _Deadline:
    """The end of an exchange."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def problem(self) -> str:
        return f"no answer within {self._seconds:g} s"

    @contextmanager
    def shuts(self, opened: socket.socket) -> Iterator[None]:
        """Shuts a connection down at the deadline, whatever this side waits for."""

        def shut() -> None:
            with suppress(OSError):  # SSLSocket's own method would forget that the connection is encrypted
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

        timer = Timer(self.left, shut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what goes wrong after the request was begun into NoAnswerError."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self.left:
                raise LateAnswerError(self.problem) from None
            raise NoAnswerError(f"cut off ({_reason(error)})") from None


def _connected(parts: SplitResult, deadline: _Deadline, *, public: bool) -> socket.socket:
    """A connection to the first address of the host that answers, for https before the handshake."""
    host, port = origin(parts)
    failure: Exception | None = None
    for family, kind, protocol, address in _addresses(host, port, public=public):
        with ExitStack() as stack:
            try:
                opened = stack.enter_context(socket.socket(family, kind, protocol))
                opened.settimeout(max(0.001, min(CONNECT_SECONDS, deadline.left)))
                opened.connect(address)
                opened.settimeout(None)
                if parts.scheme == "https":
                    context = ssl.create_default_context()
                    opened = context.wrap_socket(opened, server_hostname=host, do_handshake_on_connect=False)
            except (OSError, ValueError) as error:
                failure = error
                continue
            stack.pop_all()
            return opened
    assert failure is not None
    raise NotSentError(_reason(failure)) from None


def _addresses(host: str, port: int, *, public: bool) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise UnknownHostError(getattr(error, "strerror", None) or "no name of a host") from None
    for *_, address in found:
        if public and not _is_public(str(address[0])):
            raise PrivateAddressError(str(address[0]))
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def _is_public(text: str) -> bool:
    """Whether an address is public, and so is the IPv4 address that an IPv6 address may stand for."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not inner.is_global:
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


def _shake_hands(opened: ssl.SSLSocket, deadline: _Deadline) -> None:
    try:
        opened.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(error.verify_message) from None
    except (OSError, ValueError) as error:
        raise NotSentError(_reason(error) if deadline.left else deadline.problem) from None


def _chunks(response: http.client.HTTPResponse, max_bytes: int, deadline: _Deadline) -> Iterator[bytes]:
    """The body, as it comes; its end is an error if something is missing."""
    expected = response.length
    received = 0
    while received <= max_bytes and (expected or 0) <= max_bytes:
        with deadline.explained():
            chunk = response.read1(_CHUNK)
        if not chunk:
            break
        received += len(chunk)
        yield chunk
    else:
        raise LargeAnswerError(f"the answer is larger than {max_bytes / 2**20:.4g} MiB")
    if received != expected and not deadline.left:
        raise LateAnswerError(deadline.problem)
    if expected is not None and received != expected:
        raise NoAnswerError(f"cut off after {received} of {expected} bytes")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
