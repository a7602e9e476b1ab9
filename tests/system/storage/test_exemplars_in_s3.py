"""Exemplars in S3 become a folder in the cache, whole or not at all, and are fetched again only when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.httpsession import URLLib3Session

from corrector.errors import UserError
from corrector.exemplars.sources import SourceLimits, load_source, resolve_source
from corrector.settings import Settings
from tests.support.archives import PICTURES, zipped
from tests.support.faulty_proxy import FaultyProxy


@pytest.fixture
def environment(tmp_path: Path) -> Settings:
    return Settings(cache=tmp_path / "cache", storage="", tracking_uri=None, exemplar_roots=())


@pytest.fixture
def stored(bucket: str, s3: Any) -> str:
    """A prefix with pictures and captions, and beside it one whose name begins alike."""
    for name, body in PICTURES.items():
        s3.put_object(Bucket=bucket, Key=f"lying/train/{name}", Body=body)
    s3.put_object(Bucket=bucket, Key="lying/metadata.jsonl", Body=b"{}")
    s3.put_object(Bucket=bucket, Key="lying2/9.png", Body=PICTURES["0.png"])
    return f"s3://{bucket}/lying"


def images(reference: str, environment: Settings) -> list[bytes]:
    folder = resolve_source(reference, Path(), settings=environment).folder
    return sorted(path.read_bytes() for path in folder.iterdir())


def test_a_prefix_is_the_folder_that_was_uploaded(stored: str, tmp_path: Path, environment: Settings) -> None:
    for name, body in PICTURES.items():
        (tmp_path / name).write_bytes(body)
    there = load_source(stored, Path(), resolution=32, settings=environment)
    here = load_source(str(tmp_path), Path(), resolution=32, settings=environment)
    assert there.digest == here.digest
    assert set(there.file_digests.values()) == set(here.file_digests.values())
    assert there.notes[0] == "metadata.jsonl: captions are not read; the batch file's prompt counts"


def test_an_archive_in_s3_is_unpacked(bucket: str, s3: Any, environment: Settings) -> None:
    s3.put_object(Bucket=bucket, Key="sets/lying.zip", Body=zipped(PICTURES))
    assert images(f"s3://{bucket}/sets/lying.zip", environment) == sorted(PICTURES.values())
    with pytest.raises(UserError, match=r"no images in it.*\n  not images, ignored: lying.zip"):
        images(f"s3://{bucket}/sets", environment)


def test_what_is_in_the_cache_is_fetched_again_only_when_it_has_changed(
    stored: str, bucket: str, s3: Any, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    send = URLLib3Session.send

    def counted(session: URLLib3Session, request: Any) -> Any:
        if "/lying/train/" in request.url and request.method == "GET":
            fetched.append(request.url)
        return send(session, request)

    monkeypatch.setattr(URLLib3Session, "send", counted)
    for _ in range(2):
        images(stored, environment)
        assert len(fetched) == len(PICTURES)
    s3.put_object(Bucket=bucket, Key="lying/train/0.png", Body=PICTURES["1.png"])
    assert images(stored, environment).count(PICTURES["1.png"]) == 2


@pytest.mark.parametrize("when", ["listing", "reading"])
def test_a_bucket_that_denies_in_the_middle_leaves_nothing(
    when: str, stored: str, s3: Any, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corrector.s3.PAGE_SIZE", 3)
    with FaultyProxy(s3.meta.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        asked: list[str] = []
        send = URLLib3Session.send

        def denied_from_the_second_on(session: URLLib3Session, request: Any) -> Any:
            if ("continuation-token=" if when == "listing" else "/lying/train/") in request.url:
                asked.append(request.url)
                if len(asked) == 2:
                    proxy.deny()
            return send(session, request)

        monkeypatch.setattr(URLLib3Session, "send", denied_from_the_second_on)
        with pytest.raises(UserError, match=r"check AWS_ACCESS_KEY_ID|denied it; they need s3:ListBucket"):
            images(stored, environment)
    assert len(asked) >= 2
    assert [path for path in environment.cache.rglob("*") if path.is_file()] == []


def test_a_prefix_with_too_many_objects_is_not_fetched(stored: str, environment: Settings) -> None:
    for limits, reason in (
        (SourceLimits(entries=3), "holds more than 3 entries"),
        (SourceLimits(source_bytes=100), "is larger than"),
    ):
        with pytest.raises(UserError, match=reason):
            resolve_source(stored, Path(), settings=environment, limits=limits)
    assert not environment.cache.exists()
