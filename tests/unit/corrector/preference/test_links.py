"""Links: only those that were signed for this survey are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.preference.links import SECRET_FILE, VARIABLE, Links, write_secret

LINK = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_signed_link_is_taken_and_no_other(tmp_path: Path) -> None:
    write_secret(tmp_path)
    links = Links(tmp_path, "one")
    token = links.token(LINK)
    assert links.link(token) == LINK
    signature = token.partition(".")[2]
    forged = [
        LINK,
        f"{LINK}.",
        f"fedcba9876543210.{signature}",
        f"{LINK}.{'A' * 43}",
        token + "\n",
        token.upper(),
        "../survey.json",
        "é" * 60,
        Links(tmp_path, "other").token(LINK),
    ]
    assert [links.link(each) for each in forged] == [None] * len(forged)


def test_the_environments_secret_comes_before_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secret(tmp_path)
    before = Links(tmp_path, "one").token(LINK)
    monkeypatch.setenv(VARIABLE, "x" * 32)
    assert Links(tmp_path, "one").link(before) is None
    (tmp_path / SECRET_FILE).unlink()
    assert Links(tmp_path, "one").link(Links(tmp_path, "one").token(LINK)) == LINK
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(UserError, match="fewer than 32 characters"):
        Links(tmp_path, "one")
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UserError, match="no secret for links"):
        Links(tmp_path, "one")
