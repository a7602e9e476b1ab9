"""Downloads an untrusted URL: from public addresses, of bounded size, in bounded time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from corrector import http_client
from corrector.errors import UserError
from corrector.exemplars.files import printable
from corrector.exemplars.sources.limits import SourceLimits, UnusableSourceError
from corrector.prompts.exemplar_references import check_address, is_web_url, named

NOT_MODIFIED = 304
_REFUSALS = {
    401: "wants a login; make a signed URL, or fetch the archive and name its path",
    403: "may not be read; if it is a signed URL, it may have expired: make a new one",
    404: "is not there; check the URL",
    410: "is no longer there; check the URL",
}


def download(
    url: str,
    path: Path,
    limits: SourceLimits,
    *,
    allow_private: bool,
    conditions: Mapping[str, str] | None = None,
) -> http_client.Response:
    """Write what is at `url`, after redirects, to the file `path`; returns the answer without its body.

    Args:
        allow_private: Whether http:// and private, loopback and link-local addresses are allowed.
        conditions: Headers such as `If-None-Match`. Where the server answers that nothing was modified since, the status is
            `NOT_MODIFIED` and nothing is written.

    Raises:
        UnusableSourceError: It may not be fetched, is not there, is too large, took too long, or was cut off.
        OSError: The disk cannot take it.
    """
    host = ""

    def check(hop: str) -> bool:
        nonlocal host
        if not is_web_url(hop):
            raise UnusableSourceError(f"leads to {named(hop)}, which is no web address; check the URL")
        try:
            host = printable(check_address(hop, allow_private=allow_private).hostname or "")
        except UserError as error:
            raise UnusableSourceError(f"leads to an address that is not fetched: {error}") from None
        return not allow_private

    try:
        response = http_client.fetch(
            url,
            check=check,
            redirects=limits.redirects,
            seconds=limits.seconds,
            max_bytes=limits.source_bytes,
            headers=conditions,
            file=path,
        )
    except http_client.LargeAnswerError:
        limits.require_source_bytes(limits.source_bytes + 1)
        raise
    except (
        http_client.NotSentError,
        http_client.NoAnswerError,
        http_client.UnusableUrlError,
    ) as error:
        raise UnusableSourceError(_explained(error, host, limits.seconds)) from None
    if response.location is not None:
        raise UnusableSourceError(
            f"was redirected more than {limits.redirects} times; give the archive's own URL"
        )
    if response.status != 200 and not (conditions and response.status == NOT_MODIFIED):
        reason = _REFUSALS.get(response.status, "cannot be fetched; try again later, or check the URL")
        raise UnusableSourceError(f"{reason} (the server answered {response.status})")
    return response


def _explained(error: Exception, host: str, seconds: float) -> str:
    reason = printable(str(error))[:120]
    match error:
        case http_client.UnknownHostError():
            return f'has the unknown host "{host}" ({reason}); check it'
        case http_client.CertificateError():
            return f"has no certificate for {host} ({reason}); check the URL"
        case http_client.NotSentError():
            return f"does not answer ({reason}); check the URL and the network"
        case http_client.LateAnswerError():
            return f"took longer than {seconds:g} s; try again, or fetch the archive and name its path"
        case http_client.NoAnswerError():
            return f"was {reason}; try again, or check the server"
        case http_client.PrivateAddressError():
            return (
                f'leads to "{host}", which has the private address {error.address}; give a public URL, or set '
                "CORRECTOR_ALLOW_PRIVATE_URLS=1 to allow private addresses"
            )
    return f"{reason}; check it in a browser"
