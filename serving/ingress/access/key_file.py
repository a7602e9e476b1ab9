"""KeyFile: names, SHA-256 digests, limits and scopes of API keys; never a key itself."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from corrector.errors import UserError
from corrector.files import write_atomically
from serving.ingress.http.error_messages import EXPECTED, first_mistake
from serving.settings import Versions

_PREFIX = "pc-"
_MAX_FILE_BYTES = 16 * 1024**2

KeyName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        json_schema_extra={
            EXPECTED: 'letters, digits, ".", "_" and "-", at most 64, with a letter or digit first'
        },
    ),
]


class ApiKey(BaseModel):
    """One key. SHA-256 without salt or stretching suffices: a key is 256 random bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: KeyName = Field(description="Whose it is; in logs, and the unit of fairness and limits.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="Of the key.",
        json_schema_extra={EXPECTED: "64 hexadecimal digits"},
    )
    created: datetime
    disabled: bool = Field(default=False, description="Answered with 403.")
    requests_per_minute: int | None = Field(default=None, ge=1, description="None: no limit.")
    concurrent_images: int | None = Field(
        default=None, ge=1, description="Images that wait or are drawn at once; None: no limit."
    )
    versions: Versions = Field(
        default="reviewed",
        description="Versions of adapters that the key may draw: reviewed (champion and challenger), or any. A file without "
        "the field means reviewed.",
    )


class KeyFile(BaseModel):
    """All keys of an endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> KeyFile:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name")
        return self

    @classmethod
    def read(cls, path: Path) -> KeyFile:
        """The keys in a file.

        Raises:
            UserError: The file cannot be read, or is not a file of keys.
        """
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        if len(content) > _MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise UserError(f"{path}: {first_mistake(error, cls)}") from None

    def write(self, path: Path) -> None:
        """Replace the file atomically; only its owner may read it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.model_dump_json(indent=2) + "\n", mode=0o600)

    def get(self, name: str) -> ApiKey:
        """The key of this name.

        Raises:
            UserError: There is none.
        """
        for key in self.keys:
            if key.name == name:
                return key
        raise UserError(f'no key "{name}"; there are: {", ".join(key.name for key in self.keys) or "none"}')

    def replacing(self, name: str, *new: ApiKey) -> KeyFile:
        """These keys without the key `name`, and with the keys `new`."""
        return KeyFile(keys=(*(key for key in self.keys if key.name != name), *new))


def digest(secret: str) -> str:
    """The stored form of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_key(
    name: str,
    *,
    requests_per_minute: int | None = None,
    concurrent_images: int | None = None,
    versions: Versions = "reviewed",
) -> tuple[ApiKey, str]:
    """A new key: the entry to store, and the secret for its owner.

    Raises:
        UserError: A name or a limit is not valid.
    """
    secret = _PREFIX + secrets.token_urlsafe(32)
    try:
        key = ApiKey(
            name=name,
            sha256=digest(secret),
            created=datetime.now(UTC).replace(microsecond=0),
            requests_per_minute=requests_per_minute,
            concurrent_images=concurrent_images,
            versions=versions,
        )
    except ValidationError as error:
        raise UserError(first_mistake(error, ApiKey)) from None
    return key, secret
