"""Authenticator: identifies the caller of a request by its bearer key."""

import hmac
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from corrector.errors import UserError
from serving.ingress.access.key_file import ApiKey, KeyFile, digest
from serving.ingress.http.errors import ApiError
from serving.settings import Versions

logger = logging.getLogger(__name__)

_REFRESH_SECONDS = 1.0
"""Shortest time between two checks whether the file has changed."""
_MAX_KEY_CHARS = 256


@dataclass(frozen=True)
class Caller:
    """The owner of a request's key, with its limits; a limit of None means no limit."""

    name: str
    requests_per_minute: int | None = None
    concurrent_images: int | None = None
    versions: Versions = "reviewed"

    @property
    def unreviewed(self) -> bool:
        """Whether the caller may draw versions that nobody has approved."""
        return self.versions == "any"


ANONYMOUS = Caller("anonymous")


class Authenticator:
    """The keys of a file, read again when it changes. A file that cannot be read is logged, and the keys stay valid."""

    def __init__(self, path: Path | None, *, anonymous_versions: Versions = "reviewed") -> None:
        """`path` None: requests need no key.

        Raises:
            UserError: The file cannot be read.
        """
        self._path = path
        self._anonymous = Caller(ANONYMOUS.name, versions=anonymous_versions)
        self._refreshed = time.monotonic()
        self._seen = _state(path)
        self._keys: tuple[ApiKey, ...] = () if path is None else KeyFile.read(path).keys
        if path is None:
            logger.warning("no file of API keys is configured: everybody who reaches this server may use it")

    def caller(self, authorization: str | None) -> Caller:
        """The owner of the key in the Authorization header.

        Raises:
            ApiError: 401 or 403.
        """
        if self._path is None:
            return self._anonymous
        self._refresh(self._path)
        scheme, _, secret = (authorization or "").strip().partition(" ")
        secret = secret.strip()
        if not secret or scheme.lower() != "bearer":
            raise _unauthorised("no API key; send the header Authorization: Bearer KEY")
        found = digest(secret[:_MAX_KEY_CHARS])
        # Every key is compared, in constant time, so that the time does not depend on the key.
        matches = [key for key in self._keys if hmac.compare_digest(key.sha256, found)]
        if not matches:
            raise _unauthorised("the API key is not valid")
        key = matches[0]
        if key.disabled:
            raise ApiError(403, f'the API key "{key.name}" is disabled', code="key_disabled")
        return Caller(key.name, key.requests_per_minute, key.concurrent_images, key.versions)

    def _refresh(self, path: Path) -> None:
        now = time.monotonic()
        if now - self._refreshed < _REFRESH_SECONDS:
            return
        self._refreshed = now
        state = _state(path)
        if state == self._seen:
            return
        self._seen = state
        try:
            self._keys = KeyFile.read(path).keys
        except UserError as error:
            logger.error("%s; the keys that were read before stay valid", error)
        else:
            logger.info("%s: %d keys", path, len(self._keys))


def _state(path: Path | None) -> tuple[int, int, int] | None:
    """A value that changes whenever the file changes."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _unauthorised(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
