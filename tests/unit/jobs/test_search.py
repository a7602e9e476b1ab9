"""`python -m jobs.search` with mistakes that only base and exemplars can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.search import main
from tests.support.batches import write_search


def test_what_only_base_and_exemplars_can_tell_is_told_before_anything_starts(
    tmp_path: Path, small_sd3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_search(tmp_path, small_sd3, space={"rank": [2, 900]})
    for file in list((tmp_path / "person").glob("*.png"))[2:]:
        file.unlink()

    decisions = tmp_path / "decisions.json"
    options = [str(path), "--storage", str(tmp_path / "runs"), "--decisions", str(decisions)]
    assert main(options) == 2
    assert f"decisions: cannot read {decisions}" in capsys.readouterr().err

    decisions.write_text("{}")
    assert main([*options, "--accept-exemplars"]) == 2

    told = capsys.readouterr().err
    assert "search.space.rank: rank 900 (person) is above the width of the base's layers" in told
    assert "exemplars: too few to hold any out" in told
    assert "batch.json:1: " in told
    assert not (tmp_path / "runs").exists()
