"""What a reviewer is told about an adapter's prompts before its promotion."""

from pathlib import Path

import pytest

from serving.preview import Previewed, lines, main, preview
from serving.router.embedding import Embedder


def test_prompts_on_both_sides_of_the_border_and_none_that_is_registered() -> None:
    registered = ("a person lying on the grass", "a photo of a woman reclining on the lawn")
    found = preview(registered[0], registered[1:], ["a person sitting on the grass"], (), Embedder())
    texts = [each.text for each in found]
    assert not set(texts) & {*registered, "a person sitting on the grass"}
    assert [each.margin for each in found] == sorted((each.margin for each in found), reverse=True)
    assert sum(each.margin >= 0 for each in found) >= 12 and sum(each.margin < 0 for each in found) >= 12
    assert all(each.margin < 0 for each in found if " not " in each.text)


def test_the_report_shows_the_border_first() -> None:
    found = [
        Previewed("sure", 2.0, ""),
        Previewed("doubtful", 0.1, ""),
        Previewed("near", -0.1, "it says"),
        Previewed("far", -5.0, "no"),
    ]
    assert list(lines(found, 1)) == [
        *("routed to it, the most doubtful first:", "  doubtful"),
        *("not routed to it, the nearest first:", "  near (it says)"),
    ]


def test_an_unknown_adapter_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["nobody"]) == 2
    assert "no registry here" in capsys.readouterr().err
