"""`python -m corrector.preference analyse SURVEY` reads the survey's votes, prints the analysis and writes it as JSON."""

from pathlib import Path

import pytest

from corrector.preference.__main__ import main
from corrector.preference.analysis import Analysis, analyse
from corrector.preference.survey_folder import SURVEY_FILE
from tests.support.surveys import defined
from tests.unit.corrector.preference.ballots import ballot, coin_votes, store_ballots


def test_the_analysis_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = defined(pairs=30)
    fast = [ballot(survey, "joe", place, "a", seconds=0.2) for place in range(3)]
    votes = fast + coin_votes(survey, ["ann", "bob", "eve"], seed=1, share_of_b=0.9, agreement=0.95)
    (tmp_path / SURVEY_FILE).write_text(survey.model_dump_json())
    store_ballots(tmp_path, survey, votes)

    assert main(["analyse", str(tmp_path), "--out", str(tmp_path / "analysis.json")]) == 0

    written = Analysis.model_validate_json((tmp_path / "analysis.json").read_text())
    assert written == analyse(survey, votes)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "93 ballots of 4 raters, 3 of them kept"
    assert printed[2] == "excluded joe: median time of a view 0.2 s (at least 1.5 s)"
    assert [line.partition(":")[0] for line in printed[3::3]] == [
        "body",
        "prompt",
        "overall",
        "stopping rule",
    ]
    assert printed[-1].startswith("stopping rule: preference; ")


def test_a_survey_without_votes_is_analysed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / SURVEY_FILE).write_text(defined(pairs=2).model_dump_json())

    assert main(["analyse", str(tmp_path)]) == 0

    assert "overall: no pair is decided" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("made", "out", "message"),
    [(False, "analysis.json", "no survey.json"), (True, "missing/analysis.json", "cannot write")],
)
def test_a_mistake_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: bool, out: str, message: str
) -> None:
    if made:
        (tmp_path / SURVEY_FILE).write_text(defined(pairs=2).model_dump_json())

    assert main(["analyse", str(tmp_path), "--out", str(tmp_path / out)]) == 2

    assert message in capsys.readouterr().err
