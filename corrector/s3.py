"""Objects and folders on S3: AWS, Ceph, MinIO, or any server that speaks its protocol.

Endpoint, region, credentials and profile come from the usual AWS variables and files
(`AWS_ENDPOINT_URL`, `AWS_PROFILE`, ...). Virtual hosts are used on AWS and paths elsewhere, unless the profile's
`s3 = addressing_style = ...` says otherwise.

A prefix is a folder: `s3://bucket/models/sd3` is that object or the objects below it, and not `models/sd35`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from corrector.errors import UserError

Client: TypeAlias = Any
"""botocore's S3 client, whose class is made at run time."""

ATTEMPTS = 4
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
PAGE_SIZE = 1000
"""Keys in one answer to a listing; S3 gives at most 1000."""

_SCHEME = "s3://"
_REASONS = {
    "NoSuchBucket": "there is no such bucket; create it, or check its name and AWS_ENDPOINT_URL",
    "InvalidBucketName": "this is no name of a bucket; check it",
    "NoSuchKey": "the object was removed meanwhile; try again",
    "PreconditionFailed": "the object was changed meanwhile; try again",
    "SignatureDoesNotMatch": "the access key or its secret is wrong; check AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "InvalidAccessKeyId": "the access key is unknown there; check AWS_ACCESS_KEY_ID, or AWS_PROFILE",
    "AccessDenied": "these credentials are denied it; they need s3:ListBucket on the bucket and s3:GetObject "
    "(for uploads s3:PutObject) on its objects",
    "ExpiredToken": "the credentials have expired; sign in again, or renew AWS_SESSION_TOKEN",
    "ServiceUnavailable": "the server takes no more now: it is overloaded, or its disk is full; look there, and try again",
    "SlowDown": "the server is overloaded; try again later",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "PermanentRedirect": "the bucket lies in another region; set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set AWS_DEFAULT_REGION to it",
}
# The answer to a HEAD request has no body, so its error has only a number.
_SYNONYMS = {"403": "AccessDenied", "404": "NoSuchKey", "412": "PreconditionFailed"}


def is_s3_url(text: str) -> bool:
    """Whether `text` is an `s3://` URL, well-formed or not."""
    return text.startswith(_SCHEME)


def fingerprint(url: str, *, keep: Callable[[str], bool] | None = None) -> str:
    """SHA-256 over the sorted (relative key, size, ETag) of the object, or of those below `url`, in hex.

    It changes when an object changes, is added or is removed. It takes a listing only. `keep` and errors are those of
    `download`.
    """
    place = _Place.parse(url)
    with _connected(place) as client:
        found = _wanted(client, place, keep)
    listing = "".join(sorted(f"{item.name}\0{item.size}\0{item.etag}\n" for item in found))
    return hashlib.sha256(listing.encode()).hexdigest()


def sizes(url: str) -> dict[str, int]:
    """Relative key -> bytes of the object at `url`, or of those below it. Errors are those of `download`."""
    place = _Place.parse(url)
    with _connected(place) as client:
        return {item.name: item.size for item in _wanted(client, place, None)}


def download(url: str, folder: Path, *, keep: Callable[[str], bool] | None = None) -> Path:
    """Fetch the object at `url`, or all objects below it, into `folder`; return the file, or `folder`.

    Each file is written whole or not at all, with its object's modification time. A file that has this time and size already
    is not fetched again, so an interrupted download continues. A killed process leaves a partial file under a name with a
    random ending. Other files in `folder` stay.

    Args:
        keep: Chooses objects by their key relative to `url` (a single object by its last part). None: all.

    Raises:
        UserError: Nothing is there (or nothing to keep), a key would leave `folder`, access or credentials are missing,
            the bucket does not exist, no answer came after ATTEMPTS, or the disk is full.
    """
    place = _Place.parse(url)
    with _connected(place) as client:
        found = _wanted(client, place, keep)
        targets = {item.name: local_path(folder, item.name, url) for item in found}
        _refuse_files_in_the_way_of_folders(targets, url)
        missing = [item for item in found if not item.is_at(targets[item.name])]
        for item in missing:
            targets[item.name].parent.mkdir(parents=True, exist_ok=True)
        with _transfers(client) as manager:
            running = [
                manager.download(
                    place.bucket, item.key, str(targets[item.name]), subscribers=[_AsListed(item)]
                )
                for item in missing
            ]
            for item, transfer in zip(missing, running, strict=True):
                transfer.result()
                os.utime(targets[item.name], ns=(item.stamp, item.stamp))
    return targets[found[0].name] if found[0].key == place.key else folder


def normalised(url: str) -> str:
    """`url` without slashes at its end; raises UserError where it names no bucket."""
    place = _Place.parse(url)
    return f"{_SCHEME}{place.bucket}/{place.key}".rstrip("/")


def etag(url: str) -> str | None:
    """The ETag of the object at `url`; None where there is no such object."""
    from botocore.exceptions import ClientError

    place = _Place.parse(url)
    with _connected(place) as client:
        try:
            found: str = client.head_object(Bucket=place.bucket, Key=place.key)["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
    return found


def download_object(url: str, path: Path) -> None:
    """Write the object at `url` to the file `path`, whole or not at all; missing parents of `path` are made."""
    place = _Place.parse(url)
    with _connected(place) as client:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _transfers(client) as manager:
            manager.download(place.bucket, place.key, str(path)).result()


def upload(path: Path, url: str) -> None:
    """Write the file `path` to the object at `url`, whole or not at all."""
    place = _Place.parse(url)
    with _connected(place) as client, _transfers(client) as manager:
        manager.upload(str(path), place.bucket, place.key).result()


def remove(url: str) -> None:
    """Remove the object at `url`, if it is there."""
    place = _Place.parse(url)
    with _connected(place) as client:
        client.delete_object(Bucket=place.bucket, Key=place.key)


def presigned(url: str, *, seconds: int) -> str:
    """An HTTP URL from which anybody can fetch the object at `url` for `seconds`.

    It is signed with this process's credentials, and expires earlier if they do. The function does not check that the object
    exists.

    Raises:
        UserError: `url` names a folder, or there are no credentials.
    """
    place = _Place.parse(url)
    if place.is_folder:
        raise UserError(f"{url}: names a folder; a signed URL is of one object")
    with _connected(place) as client:
        signed: str = client.generate_presigned_url(
            "get_object", Params={"Bucket": place.bucket, "Key": place.key}, ExpiresIn=seconds
        )
    return signed


def local_path(folder: Path, name: str, url: str) -> Path:
    """The path in `folder` for the object with the relative key `name`.

    Raises:
        UserError: The path would be outside of `folder`, or differs between systems.
    """
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\\" in name or "\0" in name:
        raise UserError(
            f"{url}: the key {name!r} below it could lie outside of the folder that it is fetched into; "
            "nothing was fetched; rename or remove that object"
        )
    return folder.joinpath(*parts)


@dataclass(frozen=True)
class _Place:
    """A parsed URL: `key` has no slash at its end; `is_folder` says whether the URL had one."""

    url: str
    bucket: str
    key: str
    is_folder: bool

    @classmethod
    def parse(cls, url: str) -> _Place:
        bucket, _, key = url.removeprefix(_SCHEME).partition("/")
        if not is_s3_url(url) or not bucket:
            raise UserError(f'"{url}" is no S3 URL; write s3://BUCKET/KEY')
        return cls(url, bucket, key.rstrip("/"), not key or key.endswith("/"))

    @property
    def prefix(self) -> str:
        """The beginning of the keys of all objects below the place."""
        return f"{self.key}/" if self.key else ""


@dataclass(frozen=True)
class _Object:
    """One listed object; `name` is its key relative to the URL, `modified` is in seconds since the epoch."""

    key: str
    name: str
    size: int
    etag: str
    modified: int

    @property
    def stamp(self) -> int:
        """The modification time of its file, in nanoseconds since the epoch.

        S3 gives whole seconds. The fraction comes from the ETag, so that two versions from the same second differ.
        """
        return self.modified * 10**9 + int(hashlib.sha256(self.etag.encode()).hexdigest(), 16) % 10**9

    def is_at(self, path: Path) -> bool:
        """Whether an earlier download wrote it to `path`."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.stamp)


class _AsListed:
    """Gives a transfer the listed size and ETag: it sends no HEAD request, and fails if the object has changed."""

    def __init__(self, item: _Object) -> None:
        self._item = item

    def on_queued(self, future: Any, **_: object) -> None:
        """Called by the transfer manager before the first request."""
        future.meta.provide_transfer_size(self._item.size)
        future.meta.provide_object_etag(self._item.etag)


def _objects(client: Client, place: _Place) -> list[_Object]:
    """The object at the place, else all objects below it, without the empty objects that represent folders."""
    if not place.is_folder:
        # S3 lists keys in order, so this key comes before the longer ones.
        first = client.list_objects_v2(Bucket=place.bucket, Prefix=place.key, MaxKeys=1).get("Contents", [])
        if not first:
            return []
        if first[0]["Key"] == place.key:
            return [_as_object(first[0], place.key.rpartition("/")[2])]
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=place.prefix, PaginationConfig={"PageSize": PAGE_SIZE}
    )
    return [
        _as_object(entry, entry["Key"].removeprefix(place.prefix))
        for page in pages
        for entry in page.get("Contents", [])
        if not entry["Key"].endswith("/")
    ]


def _as_object(entry: dict[str, Any], name: str) -> _Object:
    return _Object(entry["Key"], name, entry["Size"], entry["ETag"], int(entry["LastModified"].timestamp()))


def _wanted(client: Client, place: _Place, keep: Callable[[str], bool] | None) -> list[_Object]:
    """The objects at the place that `keep` chooses; UserError if there are none."""
    found = _objects(client, place)
    if not found:
        raise UserError(
            f"{place.url} at {client.meta.endpoint_url}: nothing is there in that bucket; check the key"
        )
    wanted = [item for item in found if keep is None or keep(item.name)]
    if not wanted:
        raise UserError(
            f"{place.url} at {client.meta.endpoint_url}: none of its {len(found)} objects is needed "
            f'(the first is "{found[0].name}"); check the key'
        )
    return wanted


def _refuse_files_in_the_way_of_folders(targets: dict[str, Path], url: str) -> None:
    for name in targets:
        above = name.rpartition("/")[0]
        while above:
            if above in targets:
                raise UserError(
                    f'{url}: "{above}" is an object and the folder of "{name}", which no disk can hold; remove one'
                )
            above = above.rpartition("/")[0]


@contextmanager
def _connected(place: _Place) -> Iterator[Client]:
    """A client for the place; a failure of S3 or the disk inside the context becomes a UserError."""
    from boto3.exceptions import Boto3Error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session
    from s3transfer.exceptions import RetriesExceededError

    configuration = Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
    )
    try:
        session = Session()
        session.register_component("data_loader", _loader())
        client = session.create_client("s3", config=configuration)
    except (BotoCoreError, ValueError) as error:  # an unknown profile, an endpoint that is no URL
        raise UserError(f"{place.url}: {error}; check the AWS_ variables") from error
    try:
        yield client
    except ClientError as error:
        raise UserError(f"{place.url} at {client.meta.endpoint_url}: {_refusal(error)}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise UserError(f"{place.url} at {client.meta.endpoint_url}: {_failure(error)}") from error
    except RetriesExceededError as error:
        reason = _failure(error.last_exception)
        raise UserError(f"{place.url} at {client.meta.endpoint_url}: {reason}") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}; make room there, or choose another place"
        raise UserError(f"{place.url}: {reason}") from error


@cache
def _loader() -> Any:
    """botocore's reader of its service descriptions, whose cache all clients share.

    A client takes 10 ms of CPU with it, and 60 ms (sometimes 230 ms) without.
    """
    from botocore.loaders import create_loader

    return create_loader()


@contextmanager
def _transfers(client: Client) -> Iterator[Any]:
    """boto3's manager of parallel and multipart transfers; an exception in the context cancels the running ones."""
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    # On some machines boto3 chooses CRT, which ignores timeouts and attempts.
    with create_transfer_manager(client, TransferConfig(preferred_transfer_client="classic")) as manager:
        yield manager


def _refusal(error: Any) -> str:
    """The meaning of the server's answer, and what to do."""
    code = error.response["Error"]["Code"]
    known = _REASONS.get(_SYNONYMS.get(code, code))
    return known or f"{error.response['Error'].get('Message', '')} ({code})"


def _failure(error: Exception) -> str:
    """The reason for a missing answer, and what to do."""
    from botocore.exceptions import (
        ConnectionError,  # noqa: A004 - botocore's own
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, ConnectionError | HTTPClientError):
        return (
            f"no answer after {ATTEMPTS} attempts ({error}); check AWS_ENDPOINT_URL and that the server is up"
        )
    return str(error)
