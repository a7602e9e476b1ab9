"""The bucket in which the MLflow server keeps artifacts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from cluster.object_store import ObjectStore
from corrector.errors import UserError


def require_bucket(url: str, store: ObjectStore | None) -> None:
    """Create the bucket of `url` on `store`, or check that it exists on another S3; does nothing for a `url` of another kind.

    Raises:
        UserError: The bucket cannot be used; the message says where and why.
    """
    place = urlsplit(url)
    if place.scheme != "s3":
        return
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    given: dict[str, Any] = {}
    if store is not None:
        given = {
            "endpoint_url": store.endpoint,
            "aws_access_key_id": store.access_key,
            "aws_secret_access_key": store.secret_key,
        }
    configuration = Config(
        retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=5, read_timeout=30
    )
    where = "S3"
    try:
        client = boto3.session.Session().client("s3", config=configuration, **given)
        where = client.meta.endpoint_url
        if store is not None and place.netloc not in _buckets(client):
            client.create_bucket(Bucket=place.netloc)
        client.list_objects_v2(Bucket=place.netloc, Prefix=place.path.lstrip("/"), MaxKeys=1)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise UserError(
            f"{url} at {where}: {error}; make the bucket, or check the URL and the AWS_ variables"
        ) from error


def _buckets(client: Any) -> set[str]:
    return {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
