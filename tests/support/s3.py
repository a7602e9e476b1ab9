"""Fills buckets of the run's S3 server."""

from __future__ import annotations

from pathlib import Path

import boto3


def upload(path: Path, url: str) -> None:
    """Store a file at `url`, or the files of a folder below it; the AWS variables lead to the server."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    s3 = boto3.session.Session().client("s3")
    if path.is_file():
        s3.upload_file(str(path), bucket, key)
    for file in path.rglob("*"):
        if file.is_file():
            s3.upload_file(str(file), bucket, f"{key}/{file.relative_to(path).as_posix()}".lstrip("/"))
