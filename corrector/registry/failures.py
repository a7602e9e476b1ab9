"""Explains failures of MLflow, the database, the artifact store or the disk to the user."""

from __future__ import annotations

import re
from http import HTTPStatus
from urllib.parse import unquote

from corrector.errors import UserError

_MESSAGE_LENGTH = 600
# A server that proxies artifacts names an artifact by its address below the run's.
_ARTIFACT = re.compile(
    r"/mlflow-artifacts/(artifacts|presigned)(/|\?path=)[^/\s]+/[^/\s]+/artifacts/(?P<path>[^\s?)]+)"
)
_NO_SERVER = ("Failed to establish a new connection", "NameResolutionError", "ConnectTimeoutError")


class RegistryError(UserError):
    """The registry cannot be reached or read, its content is damaged, or a request is impossible."""


def describe_failure(error: Exception) -> str | None:
    """What failed and what to do, if `error` comes from MLflow, a library that it uses, or the disk; else None."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import HTTPError, RequestException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        return _artifact_failure(error.message) or _first_line(error.message)
    if isinstance(error, HTTPError):
        failed = error.response is not None and error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return (_artifact_failure(str(error)) if failed else None) or f"refused ({_first_line(error)})"
    if isinstance(error, RequestException):
        return f"no answer ({_first_line(error)}); check that it is up"
    if isinstance(error, BotoCoreError | ClientError | Boto3Error):
        return f"the artifact store failed: {_first_line(error)}; check the AWS_ variables and that it is up"
    if isinstance(error, SQLAlchemyError):
        return f"the database failed: {_first_line(error)}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; make room, or allow it to be read and written"
    return None


def without_password(uri: str) -> str:
    """`uri` without user and password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _artifact_failure(message: str) -> str | None:
    """The message for an artifact that a reachable server could not read or write; else None."""
    found = _ARTIFACT.search(unquote(message))
    if found is None or any(reason in message for reason in _NO_SERVER):
        return None
    return (
        f"{found['path']}: the server could not read or write this artifact; the S3 behind it may be down, slow, "
        "full, or deny access: the end of the server's log says which"
    )


def _first_line(message: object) -> str:
    """The first line of an error's text: MLflow appends retries and traces."""
    text = next((line.strip() for line in str(message).splitlines() if line.strip()), "")
    return without_password(text)[:_MESSAGE_LENGTH]
