"""What cannot be shared by a URL is refused before S3 is asked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from corrector.registry import Reference, RegistryError
from corrector.registry.__main__ import main
from corrector.registry.sharing import _s3_url, share
from tests.support.registering import NAME, Registering


@pytest.mark.parametrize("minutes", ["0", "10081", "-5", "1.5", "soon"])
def test_minutes_that_no_url_can_live_are_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["share", "x", f"--minutes={minutes}"])
    assert "expected 1 to 10080 minutes" in capsys.readouterr().err


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=7, seconds=1)])
def test_a_lifetime_out_of_bounds_is_refused(lifetime: timedelta, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="lives from 1 s to 7 days"):
        share(Reference("x", "1"), tracking_uri=None, root=tmp_path, lifetime=lifetime)


def test_weights_in_a_folder_cannot_be_shared(registered: Registering, root: Path) -> None:
    registered(1)
    with pytest.raises(RegistryError, match=rf"{NAME}/1: its weights lie in file:.*, and not in S3"):
        share(Reference(NAME, "1"), tracking_uri=None, root=root)


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        ("https://bucket.s3.amazonaws.com/1/r/w%20x?X-Amz-Date=1", "s3://bucket/1/r/w x"),
        ("https://my.bucket.s3.eu-west-1.amazonaws.com/1/r/w", "s3://my.bucket/1/r/w"),
        ("https://bucket.s3.cn-north-1.amazonaws.com.cn/1/r/w", "s3://bucket/1/r/w"),
        ("https://s3.eu-west-1.amazonaws.com/my.bucket/1/r/w", "s3://my.bucket/1/r/w"),
        ("http://127.0.0.1:9000/bucket/prefix/1/r/w?X-Amz-Date=1", "s3://bucket/prefix/1/r/w"),
    ],
)
def test_a_signed_url_tells_bucket_and_key(signed: str, expected: str) -> None:
    assert _s3_url(signed) == expected
