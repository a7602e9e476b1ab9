"""Links: the signed part of a rater's address."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from itsdangerous import BadSignature, Signer

from corrector.errors import UserError

VARIABLE = "CORRECTOR_SURVEY_SECRET"
SECRET_FILE = "secret"  # noqa: S105  # the file's name
_MIN_CHARS = 32


class Links:
    """Signs links with HMAC-SHA256, for one survey."""

    def __init__(self, folder: Path, survey: str) -> None:
        """Takes the secret from CORRECTOR_SURVEY_SECRET, otherwise from the survey's folder.

        Raises:
            UserError: There is none, or it is too short.
        """
        secret = os.environ.get(VARIABLE) or _read(folder / SECRET_FILE)
        if len(secret) < _MIN_CHARS:
            raise UserError(f"{VARIABLE} or {folder / SECRET_FILE}: has fewer than {_MIN_CHARS} characters")
        self._signer = Signer(secret, salt=f"survey {survey}", digest_method=hashlib.sha256)

    def token(self, link: str) -> str:
        """The signed link."""
        return self._signer.sign(link).decode()

    def link(self, token: str) -> str | None:
        """The link that was signed; None where the token was not made by `token`."""
        if not re.fullmatch(r"[0-9a-f]{16}\.[\w-]{43}", token, re.ASCII):
            return None
        try:
            return self._signer.unsign(token).decode()
        except BadSignature:
            return None


def write_secret(folder: Path) -> None:
    """Draw a survey's secret, for its owner's eyes only."""
    descriptor = os.open(folder / SECRET_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UserError(f"{path}: no secret for links ({error.strerror}); set {VARIABLE}") from error
