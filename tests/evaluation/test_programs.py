"""The programs that measure the gate and the survey's analysis run, each at its smallest size."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation import measure_curated_training, measure_protocol, measure_survey, measure_training

pytestmark = pytest.mark.slow


def test_the_protocol_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--trials", "2", "--pool", "33", "--only", "true fix, 8", "--processes", "1"]

    assert measure_protocol.main([*given, "--out", str(tmp_path / "found.json")]) == 0

    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [trial["grade"] for trial in row["trials"]] == ["improved", "improved"]
    assert "| true fix, 8 exemplars | ≥ 90 % | 100.0% |" in capsys.readouterr().out


def test_training_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--rows", "1", "--seeds", "0", "--steps", "1", "2", "--images", "2"]

    assert measure_training.main([*given, "--out", str(tmp_path / "found.json")]) == 0

    found = json.loads((tmp_path / "found.json").read_text())
    assert [len(each["lost"]) for each in found] == [0] * 4 + [5] * 4
    assert all(len(each["shifts"]) == 5 for each in found)
    assert "guard prompts with no image lost: 20, of which" in capsys.readouterr().out


def test_the_survey_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--surveys", "3", "--pairs", "12", "--only", "8 careful"]
    files = ["--out", str(tmp_path / "found.json"), "--plot", str(tmp_path / "rates.png")]

    assert measure_survey.main([*given, *files]) == 0

    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["rows"]
    assert row["raters"] == {"careful": 24}
    assert {len(shares) for shares in found["rates"].values()} == {len(measure_survey.LEVELS)}
    with Image.open(tmp_path / "rates.png") as image:
        assert image.width > 400
    assert "| no preference, 8 careful raters |" in capsys.readouterr().out


def test_what_curation_brings_to_training_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--sets", "1", "--images", "2", "--steps", "2", "--only", "cat"]

    assert measure_curated_training.main([*given, "--out", str(tmp_path / "found.json")]) == 0

    found = json.loads((tmp_path / "found.json").read_text())
    assert [(each["arm"], each["bad"]) for each in found] == [("all", 7), ("curated", 0)]
    assert "| all of them | 7 of 24 / 0 of 17 |" in capsys.readouterr().out
