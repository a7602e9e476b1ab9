"""Downloads an untrusted URL: from public addresses, of bounded size, in bounded time.

The host's name is looked up once per request. The addresses found are checked, and the connection goes to one of
them, so a name that leads elsewhere afterwards changes nothing. Proxies from the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urljoin

from corrector.errors import UserError
from corrector.exemplars.files import printable
from corrector.exemplars.sources.limits import SourceLimits, UnusableSourceError
from corrector.prompts.exemplar_references import check_address, is_web_url, named

CONNECT_TIMEOUT_S = 10.0

_Address: TypeAlias = tuple[int, int, int, tuple[Any, ...]]
"""Family, type, protocol and address, as `socket` takes them."""
_CHUNK = 2**16
_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_REFUSALS = {
    401: "wants a login; make a signed URL, or fetch the archive and name its path",
    403: "may not be read; if it is a signed URL, it may have expired: make a new one",
    404: "is not there; check the URL",
    410: "is no longer there; check the URL",
}


def download(url: str, path: Path, limits: SourceLimits, *, allow_private: bool) -> None:
    """Write what is at `url`, after redirects, to the file `path`.

    Args:
        allow_private: Whether http:// and private, loopback and link-local addresses are allowed.

    Raises:
        UnusableSourceError: It may not be fetched, is not there, is too large, took too long, or was cut off.
        OSError: The disk cannot take it.
    """
    for _ in range(limits.redirects + 1):
        try:
            parts = check_address(url, allow_private=allow_private)
        except UserError as error:
            raise UnusableSourceError(f"leads to an address that is not fetched: {error}") from None
        target = _fetch(parts, path, limits, allow_private=allow_private)
        if target is None:
            return
        try:
            url = urljoin(url, target)
        except ValueError:
            raise UnusableSourceError("was redirected to what is no URL; check it in a browser") from None
        if not is_web_url(url):
            raise UnusableSourceError(f"leads to {named(url)}, which is no web address; check the URL")
    raise UnusableSourceError(
        f"was redirected more than {limits.redirects} times; give the archive's own URL"
    )


def _fetch(parts: SplitResult, path: Path, limits: SourceLimits, *, allow_private: bool) -> str | None:
    """One request; returns where the server redirects to, or None where `path` is written."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = _checked_addresses(host, port, allow_private=allow_private)
    with _connected(host, addresses) as raw, _deadline(raw, limits.seconds), ExitStack() as stack:
        connection = stack.enter_context(closing(http.client.HTTPConnection(host, port)))
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        else:
            connection.sock = raw
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {"Host": parts.netloc, "Accept-Encoding": "identity", "User-Agent": "prompt-corrector"}
        connection.request("GET", target, headers=headers)
        response = stack.enter_context(connection.getresponse())
        if response.status in _REDIRECTS and (location := response.getheader("Location")):
            return location
        if response.status != 200:
            reason = _REFUSALS.get(response.status, "cannot be fetched; try again later, or check the URL")
            raise UnusableSourceError(f"{reason} (the server answered {response.status})")
        _write_body(response, path, limits)
        return None


def _write_body(response: http.client.HTTPResponse, path: Path, limits: SourceLimits) -> None:
    expected = response.length
    limits.require_source_bytes(expected or 0)
    received = 0
    with path.open("wb") as file:
        while chunk := response.read1(_CHUNK):
            received += len(chunk)
            limits.require_source_bytes(received)
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise _DiskError(error) from None
    if expected is not None and received != expected:
        raise UnusableSourceError(
            f"was cut off after {received} of {expected} bytes; try again, or check the server"
        )


class _DiskError(Exception):
    """An OSError of the disk, apart from those of the network."""


def _checked_addresses(host: str, port: int, *, allow_private: bool) -> list[_Address]:
    """Where to connect to; all addresses of the host are public, or private ones are allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no name of a host"
        raise UnusableSourceError(f'has the unknown host "{printable(host)}" ({reason}); check it') from None
    for *_, address in found:
        if not allow_private and not _is_public(str(address[0])):
            raise UnusableSourceError(
                f'leads to "{printable(host)}", which has the private address {address[0]}; give a public URL, or set '
                "CORRECTOR_ALLOW_PRIVATE_URLS=1 to allow private addresses"
            )
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


@contextmanager
def _connected(host: str, addresses: list[_Address]) -> Iterator[socket.socket]:
    """A connection to the first of the addresses that answers; errors of the network become UnusableSourceError."""
    failure: OSError | None = None
    for family, kind, protocol, address in addresses:
        with socket.socket(family, kind, protocol) as raw:
            raw.settimeout(CONNECT_TIMEOUT_S)
            try:
                raw.connect(address)
            except OSError as error:
                failure = error
                continue
            raw.settimeout(None)
            try:
                yield raw
            except _DiskError as error:
                raise error.args[0] from None
            except ssl.SSLCertVerificationError as error:
                reason = f"has no certificate for {printable(host)} ({error.verify_message}); check the URL"
                raise UnusableSourceError(reason) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = printable(str(error))[:120] or type(error).__name__
                raise UnusableSourceError(f"was cut off ({reason}); try again, or check the server") from None
            return
    reason = printable(getattr(failure, "strerror", None) or str(failure))
    raise UnusableSourceError(f"does not answer ({reason}); check the URL and the network")


@contextmanager
def _deadline(raw: socket.socket, seconds: float) -> Iterator[None]:
    """Cuts the connection after `seconds`, whatever the other side lets this one wait for."""
    expired = False
    handle = raw.dup()  # TLS takes `raw` itself over

    def cut() -> None:
        nonlocal expired
        expired = True
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    problem = UnusableSourceError(
        f"took longer than {seconds:g} s; try again, or fetch the archive and name its path"
    )
    try:
        yield
    except Exception:
        if expired:
            raise problem from None
        raise
    else:
        if expired:
            raise problem
    finally:
        timer.cancel()
        handle.close()
