"""Explains failures of MLflow, the database, the artifact store or the disk to the user."""

from __future__ import annotations

import re
import sqlite3
import sys
from http import HTTPStatus
from urllib.parse import unquote

from corrector.errors import UserError

_MESSAGE_LENGTH = 600
# A server that proxies artifacts names an artifact by its address below the run's.
_ARTIFACT = re.compile(
    r"/mlflow-artifacts/(artifacts|presigned)(/|\?path=)[^/\s]+/[^/\s]+/artifacts/(?P<path>[^\s?)]+)"
)
_NO_SERVER = ("Failed to establish a new connection", "NameResolutionError", "ConnectTimeoutError")
_STATUS = re.compile(r"failed with error code (?P<status>\d{3}) != 200")
_RETRIED_STATUS = re.compile(r"too many (?P<status>\d{3}) error responses")
_NO_JSON = "the response body was not in a valid JSON format"
# What `requests` and urllib3 say of a server that was not reached, and in what words it is told.
_NOT_REACHED = {
    "NameResolutionError": "its name is not known",
    "Connection refused": "the connection was refused",
    "ConnectTimeoutError": "nothing at that address answers",
    "Failed to establish a new connection": "no connection",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted (MLFLOW_TRACKING_SERVER_CERT_PATH names one)",
    "SSLError": "it does not speak TLS; write http://",
    "Read timed out": "it did not answer in time",
    "Connection aborted": "it closed the connection",
}
_REMEDY = "correct --tracking-uri or MLFLOW_TRACKING_URI, start the server, or leave both out for the local registry"
_SIGN_IN = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of a user who may do this"


class RegistryError(UserError):
    """The registry cannot be reached or read, its content is damaged, or a request is impossible."""


def describe_failure(error: Exception) -> str | None:
    """What failed and what to do, if `error` comes from MLflow, a library that it uses, or the disk; else None."""
    if isinstance(error, sqlite3.Error):
        return f"the database failed: {_first_line(error)}"
    if "mlflow" in sys.modules:  # else none of its libraries raised this, and their imports take seconds
        described = _describe_mlflow(error)
        if described is not None:
            return described
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; make room, or allow it to be read and written"
    return None


def _describe_mlflow(error: Exception) -> str | None:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import HTTPError, RequestException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        message = error.message
        return _artifact_failure(message) or _no_mlflow(message) or _first_line(message)
    if isinstance(error, HTTPError):
        failed = error.response is not None and error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return (_artifact_failure(str(error)) if failed else None) or f"refused ({_first_line(error)})"
    if isinstance(error, RequestException):
        return _no_mlflow(str(error)) or f"no answer ({_first_line(error)}); check that it is up"
    if isinstance(error, BotoCoreError | ClientError | Boto3Error):
        return f"the artifact store failed: {_first_line(error)}; check the AWS_ variables and that it is up"
    if isinstance(error, SQLAlchemyError):
        return f"the database failed: {_first_line(error)}"
    return None


def _no_mlflow(message: str) -> str | None:
    """The message for an address at which no MLflow answers, or one that asks who is there; else None."""
    found = _RETRIED_STATUS.search(message) or _STATUS.search(message)
    status = int(found["status"]) if found else None
    if status == HTTPStatus.UNAUTHORIZED:
        return f"MLflow, or a proxy before it, asks for a user (401); {_SIGN_IN}"
    if status == HTTPStatus.FORBIDDEN:
        return f"MLflow, or a proxy before it, refuses this user (403); {_SIGN_IN}"
    if status is not None and status >= HTTPStatus.BAD_GATEWAY:
        return f"no MLflow answers there; a proxy does, with status {status}: {_REMEDY}"
    if status == HTTPStatus.NOT_FOUND or _NO_JSON in message:
        return f"no MLflow answers there; something else does, such as a web page: {_REMEDY}"
    reason = next((words for sign, words in _NOT_REACHED.items() if sign in message), None)
    return None if reason is None else f"no MLflow answers there; {reason}: {_REMEDY}"


def without_password(uri: str) -> str:
    """`uri` without user and password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _artifact_failure(message: str) -> str | None:
    """The message for an artifact that a reachable server could not read or write; else None."""
    found = _ARTIFACT.search(unquote(message))
    if found is None or any(sign in message for sign in _NO_SERVER):
        return None
    return (
        f"{found['path']}: the server could not read or write this artifact; the S3 behind it may be down, slow, "
        "full, or deny access: the end of the server's log says which"
    )


def _first_line(message: object) -> str:
    """The first line of an error's text: MLflow appends retries and traces."""
    text = next((line.strip() for line in str(message).splitlines() if line.strip()), "")
    return without_password(text)[:_MESSAGE_LENGTH]
