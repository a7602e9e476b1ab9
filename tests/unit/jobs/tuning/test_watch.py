"""A search is watched from beside it, by its journals alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from corrector.evaluation.trial_score import SampleFeatures, TrialScore
from corrector.record.search_results import RungReport
from jobs.inputs.batch import check_batch
from jobs.search import main
from jobs.tuning.plan import prompt_searches
from jobs.tuning.trials import Outcome
from tests.support.paths import EXAMPLES

EXAMPLE = EXAMPLES / "search.yaml"
FEATURES = SampleFeatures(torch.zeros(2, 3), ())
SCORE = TrialScore(
    score=0.625, distance=0.6, fid=120, fid_base=200, kid=1, kid_base=2, damage=0.025, diversity=1.5, n=8
)


def test_the_table_shows_what_stands_in_the_journals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    person = prompt_searches(check_batch(EXAMPLE, storage=tmp_path, run="search-search"))[0]
    scored, stopped = person.trial_folder(0), person.trial_folder(1)
    for folder, rank in ((scored, 16), (stopped, 4)):
        folder.begin({"rank": rank, "learning_rate": 5e-4})
    scored.add_report(RungReport(rung=0, steps=34, seconds=9, score=SCORE), FEATURES)
    stopped.end(Outcome(state="stopped"))

    assert main([str(EXAMPLE), "--storage", str(tmp_path), "--watch"]) == 0

    printed = capsys.readouterr().out
    assert "a person lying on the grass" in printed
    (own,) = [line for line in printed.splitlines() if "000 own" in line]
    assert "rank 16  learning_rate 0.0005" in own
    assert "0.625" in own
    assert "2 trials: 1 under way, 1 stopped" in printed


def test_there_must_be_something_to_watch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXAMPLE), "--storage", str(tmp_path), "--watch"]) == 2
    assert "no trials of this search here" in capsys.readouterr().err
