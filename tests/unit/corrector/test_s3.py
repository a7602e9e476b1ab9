"""Clients of S3 share what they read from botocore's files."""

from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader

from corrector import s3 as corrector_s3


def test_only_the_first_client_reads_botocores_service_descriptions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "x")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    first = corrector_s3.presigned("s3://bucket/key", seconds=60)
    read: list[str] = []
    load_file = JSONFileLoader.load_file

    def recorded(self: JSONFileLoader, path: str) -> Any:
        read.append(path)
        return load_file(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", recorded)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    second = corrector_s3.presigned("s3://bucket/key", seconds=60)
    assert read == []
    assert "another" in second
    assert "another" not in first
