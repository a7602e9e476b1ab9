"""Makes a URL from which somebody without access to the registry can fetch an adapter for a limited time.

The URL is signed with the caller's S3 credentials, for a time that the caller chooses. MLflow 3.17 also signs URLs of
artifacts that its server proxies, but only for the time that the server was started with. Here such a URL is used
only to find the artifact's location in S3, which MLflow does not give otherwise.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from corrector import s3
from corrector.files import file_sha256
from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry.download import expected_digest
from corrector.registry.failures import RegistryError
from corrector.registry.model_folder import MODEL_FOLDER, WEIGHTS_FOLDER
from corrector.registry.references import Reference, resolve
from corrector.registry.store import Store, open_store

LIFETIME = timedelta(hours=1)
LONGEST = timedelta(days=7)
"""S3's own bound for a signed URL."""

_WEIGHTS = f"{MODEL_FOLDER}/{WEIGHTS_FOLDER}/{WEIGHTS_FILE}"
# Outside AWS, clients by default name the bucket in the path.
_AWS_HOST = re.compile(r"(?P<bucket>.+)\.s3[.-][a-z0-9.-]*amazonaws\.com(\.cn)?")


@dataclass(frozen=True)
class SharedUrl:
    """A URL of a weights file, and the digest by which the receiver checks it.

    Attributes:
        version: NAME/VERSION.
        url: Anybody who has it can fetch the file. It expires earlier if the credentials that signed it do.
        sha256: SHA-256 of the file.
        expires: When S3 begins to refuse the URL.
    """

    version: str
    url: str = field(repr=False)
    sha256: str
    expires: datetime


def share(
    reference: Reference, *, tracking_uri: str | None, root: Path, lifetime: timedelta = LIFETIME
) -> SharedUrl:
    """Make a URL from which anybody can fetch the weights that `reference` names; a bare name means its champion.

    The weights are read once, with the credentials that sign, and compared with their digest.

    Args:
        lifetime: From 1 s to LONGEST, in whole seconds.

    Raises:
        RegistryError: No such version, its weights are not in S3 or not those registered, or an impossible `lifetime`.
        UserError: S3 cannot be read, or there are no credentials for it.
    """
    if not timedelta(seconds=1) <= lifetime <= LONGEST:
        raise RegistryError(f"{lifetime}: a shared URL lives from 1 s to {LONGEST.days} days")
    with open_store(tracking_uri, root, writing=False) as store, tempfile.TemporaryDirectory() as staging:
        version = resolve(store, reference)
        expected = expected_digest(version)
        location = _location(store, version.run_id, str(version))
        found = file_sha256(s3.download(location, Path(staging)))
        if found != expected:
            raise RegistryError(
                f"{version}: the SHA-256 of {location} is {found}; registered was {expected}; not shared"
            )
        url = s3.presigned(location, seconds=int(lifetime.total_seconds()))
    return SharedUrl(str(version), url, expected, _expiry(url))


def _location(store: Store, run_id: str, what: str) -> str:
    """The `s3://` URL of a run's weights."""
    address = store.artifact_address(run_id)
    if s3.is_s3_url(address):
        return f"{address}/{_WEIGHTS}"
    if not address.startswith("mlflow-artifacts:"):
        raise RegistryError(f"{what}: its weights lie in {address}, and not in S3; share a file of `export`")
    from requests.exceptions import HTTPError

    try:
        signed = store.repository(run_id)._get_presigned_download_url(_WEIGHTS).url
    except HTTPError as error:
        if error.response is None or error.response.status_code != HTTPStatus.NOT_IMPLEMENTED:
            raise
        raise RegistryError(
            f"{what}: the server keeps its weights elsewhere than in S3; share a file of `export`"
        ) from error
    return _s3_url(signed)


def _s3_url(signed: str) -> str:
    """`s3://BUCKET/KEY` of the object that a signed URL leads to."""
    parts = urlsplit(signed)
    path = unquote(parts.path).lstrip("/")
    on_aws = _AWS_HOST.fullmatch(parts.hostname or "")
    return f"s3://{on_aws['bucket']}/{path}" if on_aws else f"s3://{path}"


def _expiry(signed: str) -> datetime:
    query = parse_qs(urlsplit(signed).query)
    begun = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return begun + timedelta(seconds=int(query["X-Amz-Expires"][0]))
