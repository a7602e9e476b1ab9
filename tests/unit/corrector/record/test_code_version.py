"""The lineage names the code also where there is no checkout."""

import re
from pathlib import Path

import pytest

from corrector.record.writing import code_version, source_sha256


def test_without_git_it_is_the_version_and_a_digest_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\+source\.[0-9a-f]{12}", code_version())


def test_a_changed_file_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text("a = 1\n")
    first = source_sha256("some_package")
    assert source_sha256("some_package") == first
    (tmp_path / "some_package" / "more.py").write_text("")
    assert source_sha256("some_package") != first
