"""A prompt asks for blocks until its verdict is clear; its images are those that a correction draws first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from corrector.detectors import Detector, Finding
from corrector.detectors.exemplar_distance import ExemplarDistance
from corrector.detectors.local import InstalledJudge
from corrector.diagnosis import PromptDiagnosis, SequentialTest, ranked
from corrector.evaluation import Comparison, FeatureMemory
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.report.diagnosis import write_diagnosis_page
from tests.oracle.judge import SCENES, OracleJudge
from tests.support.scenes import pictures
from tests.unit.corrector.evaluation.compared import Colours

LYING, TREE = "a person lying on the grass", "a tree on the grass"
TEST = SequentialTest(fails_at=0.2, images=32, block=8)
ORACLE = InstalledJudge(OracleJudge())


class Hesitant(Detector):
    """The oracle, which has no verdict on some images, and stops after some."""

    name = "hesitant"

    def __init__(self, *, every: int = 10**6, most: int = 10**6) -> None:
        self._every, self._most, self._seen = every, most, 0

    def judge(self, images: Tensor, prompts: Sequence[str]) -> list[Finding]:
        found = []
        for finding in ORACLE.judge(images, prompts):
            self._seen += 1
            if self._seen > self._most:
                self.stopped = "no more"
            silent = self.stopped or self._seen % self._every == 0
            found.append(Finding(None, "no verdict") if silent else finding)
        return found


def diagnosed(
    *wordings: str, detectors: Sequence[Detector] = (ORACLE,), broken: bool = False
) -> PromptDiagnosis:
    """A prompt whose images are renders, until it asks for no more."""
    diagnosis = PromptDiagnosis(wordings, EvaluationSettings(), detectors, TEST)
    while block := diagnosis.next_block:
        images = [pictures(SCENES[text], [seed], broken=broken) for text, seed in block]
        diagnosis.add(torch.cat(images))
    return diagnosis


def test_a_prompt_that_fails_is_clear_after_one_block_and_one_that_holds_after_three() -> None:
    fails, holds = diagnosed(LYING, broken=True), diagnosed(TREE)

    assert (fails.verdict, fails.drawn, fails.failing_seeds) == ("fails", 8, list(range(1000, 1008)))
    assert (holds.verdict, holds.drawn, holds.failing_seeds) == ("holds", 24, [])
    assert [each.prompt for each in ranked([holds, fails])] == [LYING, TREE]
    rate = fails.rate()
    assert rate is not None and (rate.value, rate.high) == (1, 1) and rate.low > 0.2


def test_its_images_are_those_that_a_correction_compares_first() -> None:
    wordings = (LYING, "a person lying down on the grass", "a man lying on the lawn")
    entry = FailingPrompt.model_validate(
        {
            "prompt": wordings[0],
            "paraphrases": wordings[1:],
            "exemplars": "x",
            "hyperparameters": {"preservation": "none"},
        }
    )
    settings = EvaluationSettings(seed=7, hard_negatives=0)
    diagnosis = PromptDiagnosis(wordings, settings, [ORACLE], TEST)
    assert diagnosis.rows == Comparison.of(entry, settings).own


def test_images_without_a_verdict_are_neither_right_nor_wrong() -> None:
    diagnosis = diagnosed(LYING, detectors=[Hesitant(every=4)], broken=True)
    assert (diagnosis.verdict, diagnosis.drawn, len(diagnosis.failures())) == ("fails", 16, 12)
    assert 1003 not in diagnosis.failing_seeds


def test_a_detector_that_stops_leaves_what_it_found_and_no_verdict() -> None:
    diagnosis = diagnosed(TREE, detectors=[Hesitant(most=10)])
    assert (diagnosis.verdict, diagnosis.drawn, len(diagnosis.failures())) == ("undecided", 16, 10)
    none = diagnosed(TREE, detectors=[Hesitant(most=0)])
    assert none.rate() is None
    assert ranked([none, diagnosis]) == [diagnosis, none]


def test_the_first_detector_that_can_judge_the_prompt_decides() -> None:
    memory = FeatureMemory([Colours()])
    distance = ExemplarDistance({LYING: pictures(SCENES[LYING], range(16))}, memory)

    without, having = (
        diagnosed(TREE, detectors=[distance, ORACLE]),
        diagnosed(LYING, detectors=[ORACLE, distance]),
    )

    assert (without.detector, without.not_run) == (
        ORACLE.name,
        {distance.name: "needs 8 exemplars and has 0"},
    )
    assert (having.detector, having.not_run) == (ORACLE.name, {})
    assert len(having.failures(distance.name)) == having.drawn
    nobody = diagnosed(TREE, detectors=[distance])
    assert (nobody.verdict, nobody.detector, nobody.drawn) == ("undecided", None, 0)


def test_the_page_shows_the_images_and_no_markup_of_users(tmp_path: Path) -> None:
    hostile = Hesitant(every=4)
    hostile.name = "<script>alert(1)</script>"
    diagnosis = diagnosed(LYING, detectors=[hostile], broken=True)
    diagnosis.wordings = ('<img src=x onerror="alert(2)">', "</style><b>")
    images = pictures(SCENES[LYING], range(8), broken=True)

    path = write_diagnosis_page(
        [diagnosis],
        tmp_path / "new" / "page.html",
        title="<i>run</i>",
        job={"Base": "<u>"},
        notes=["<script>"],
        kept=lambda block: images if block[0][1] == 1000 else None,
    )

    html = path.read_text()
    for markup in ("<script", "<img src=x", "</style><b>", "<i>run", "<u>"):
        assert markup not in html
    assert "&lt;img src=x onerror=&#34;alert(2)&#34;&gt;" in html
    assert html.count("data:image/webp;base64,") == 8
    assert html.count("no longer kept") == 8
    assert (html.count("✗ wrong"), html.count("? no verdict")) == (12, 4)
    assert "seed 1003" in html


@pytest.mark.parametrize("prompts", [1, 40])
def test_a_page_of_many_prompts_shows_a_part_of_each_wrong_images_first(tmp_path: Path, prompts: int) -> None:
    one = diagnosed(LYING, detectors=[Hesitant(every=4)], broken=True)
    path = write_diagnosis_page(
        [one] * prompts, tmp_path / "page.html", title="t", job={}, notes=(), kept=lambda block: None
    )
    html = path.read_text()
    shown = 16 if prompts == 1 else 6
    assert html.count("no longer kept") == shown * prompts
    assert html.count("? no verdict") == (4 if prompts == 1 else 0)
