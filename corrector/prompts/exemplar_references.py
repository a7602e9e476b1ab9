"""References to exemplars that are no folder: archives, and addresses on S3 or the web."""

from urllib.parse import SplitResult, urlsplit

from corrector.errors import UserError
from corrector.prompts.located_values import quoted
from corrector.s3 import is_s3_url

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
"""Endings of archives that are read."""

_OTHER_ARCHIVES = (".tar.zst", ".tar.bz2", ".tar.xz", ".zst", ".bz2", ".xz", ".gz", ".7z", ".rar")
_CUT = "…"
"""Stands for a query that is not shown."""
_EXPECTED = "expected a folder, a .zip, .tar or .tar.gz, s3://BUCKET/PREFIX, or https://HOST/ARCHIVE"


def is_address(written: str) -> bool:
    """Whether `written` is a URL of any scheme, well-formed or not."""
    return "://" in written


def is_web_url(written: str) -> bool:
    """Whether `written` begins with http:// or https://."""
    return written.lower().startswith(("https://", "http://"))


def is_archive_name(written: str) -> bool:
    """Whether the ending of a path or a key is that of an archive that is read."""
    return written.lower().endswith(ARCHIVE_ENDINGS)


def shown(written: str) -> str:
    """`written` for messages and records: an address without user name, password, query and fragment.

    The query of a signed URL is a credential. An ellipsis stands for it.
    """
    scheme, separator, rest = written.partition("://")
    if not separator:
        return written
    place = rest.partition("#")[0].partition("?")[0]
    host, slash, path = place.partition("/")
    query = f"?{_CUT}" if "?" in rest else ""
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{query}"


def named(written: str) -> str:
    """`shown`, in quotes, on one line and at most 200 characters long."""
    return quoted(shown(written), limit=200)


def check_archive_name(written: str) -> None:
    """Raises UserError where `written` ends like an archive of a kind that is not read."""
    if not is_archive_name(written) and written.lower().endswith(_OTHER_ARCHIVES):
        raise UserError(
            f"{named(written)} is an archive of a kind that is not read; pack it as .zip or .tar.gz"
        )


def check_address(written: str, *, allow_private: bool) -> SplitResult:
    """The parts of an S3 or web URL; nothing is connected to.

    Args:
        allow_private: Whether http:// is allowed.

    Raises:
        UserError: It is malformed, of another scheme, or contains credentials other than a signed query.
    """
    try:
        parts = urlsplit(written)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise UserError(f"{named(written)} is no URL ({error}); {_EXPECTED}") from None
    if "@" in parts.netloc:
        raise UserError(
            f"{named(written)} is written with a user name or password, which do not belong in a batch file; "
            "use the AWS_ variables, or a signed URL"
        )
    if is_s3_url(written):
        if not parts.netloc or "?" in written:
            raise UserError(f"{named(written)} is no S3 URL; write s3://BUCKET/PREFIX without a query")
        check_archive_name(written)
        return parts
    if not is_web_url(written):
        raise UserError(f"{named(written)} is an address that is not read; {_EXPECTED}")
    if parts.query == _CUT:
        raise UserError(f"{named(written)} is a URL whose query was not recorded; write the whole URL")
    if not host or not written.isascii() or " " in written:
        raise UserError(f"{named(written)} is no URL; write its host, and percent-encode all but ASCII")
    if parts.scheme == "http" and not allow_private:
        raise UserError(
            f"{named(written)} can be read and changed by others on the way; use https://, or set "
            "CORRECTOR_ALLOW_PRIVATE_URLS=1 to allow http:// and private addresses"
        )
    return parts
