"""A reviewer sees why an adapter was approved or refused, at how many images, and what could not be known."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from corrector.evaluation import judge
from corrector.evaluation.scorecard import Look
from corrector.evaluation.scorecard_parts import PredictionShift, RightImages, VerdictScore
from corrector.evaluation.verdicts import mcnemar_p, right_share
from corrector.prompts import EvaluationSettings
from corrector.record.correction_record import CorrectionRecord
from corrector.report import write_report
from corrector.report.comparison import ComparedVersion, compare_records
from corrector.report.model_card import model_card
from corrector.report.verdict_texts import negatives_not_drawn
from tests.support.records import Status, write_record
from tests.world.scenes import Scene

PERSON = Scene("person", "lying", "grass")
MORE = Look(n=8, most=32, share=0, decision="more", why="not yet: enough images")
PASSED = Look(
    n=16, most=32, share=0.25, decision="passed", why="every condition on the prompt's images holds"
)
REFUSED = Look(n=8, most=32, share=0, decision="refused", why="not met: nearer to the held-out exemplars")
STILL = PredictionShift(prompt="a person standing on the grass", n=8, largest=0.03, mean=0.01)
IMPROVED = "nearer to the exemplars; how many images are right is not known"
UNKNOWN = "What this verdict cannot know"


def changed(folder: Path, status: Status = "corrected", **measured: Any) -> CorrectionRecord:
    """A record with these measurements, judged by the gate; guards and hard negatives follow the scorecard."""
    record = write_record(folder, PERSON, status, pairs=16, guard_images=2)
    assert record.scorecard is not None
    card = record.scorecard.model_copy(update=measured)
    card = card.model_copy(update={"verdict": judge(card, card.thresholds)})
    drawn = {
        "guards": record.guards if card.guards else (),
        "hard_negatives": record.hard_negatives if card.false_route else (),
    }
    return record.model_copy(update={"scorecard": card, **drawn})


@pytest.fixture
def improved(tmp_path: Path) -> CorrectionRecord:
    return changed(tmp_path, looks=(MORE, PASSED))


@pytest.fixture
def fixed(tmp_path: Path) -> CorrectionRecord:
    """A judge calls 15 of 16 corrected images right, and none of the base's."""
    before, after = (False,) * 16, (True,) * 15 + (False,)
    verdicts = VerdictScore(
        judge="<b>judge</b>",
        right_base=right_share(before),
        right_corrected=right_share(after),
        own=right(before, after),
        guards=(right((True, True), (True, True)),),
    )
    return changed(tmp_path, looks=(PASSED,), verdicts=verdicts)


@pytest.fixture
def refused(tmp_path: Path) -> CorrectionRecord:
    """The prompt's own images were refused at the first look, so that nothing else was drawn."""
    nothing: dict[str, Any] = {"guards": (), "false_route": None}
    return changed(tmp_path, "rejected", n=8, settings=EvaluationSettings(), looks=(REFUSED,), **nothing)


def right(before: tuple[bool, ...], after: tuple[bool, ...]) -> RightImages:
    p_better, p_worse = mcnemar_p(before, after), mcnemar_p(after, before)
    return RightImages(prompt="any", base=before, corrected=after, p_better=p_better, p_worse=p_worse)


def page(record: CorrectionRecord, folder: Path) -> str:
    """The text of the record's report."""
    html = write_report([(folder, record)], folder / "report.html", title="Verdict", job={}).read_text()
    return " ".join(unescape(re.sub("<[^>]+>", " ", html)).split())


def test_an_improved_prompt_says_that_nobody_counted_right_images(
    improved: CorrectionRecord, tmp_path: Path
) -> None:
    text, card = page(improved, tmp_path), model_card(improved, "person")
    assert f"✓ corrected improved: {IMPROVED}" in text, "in the overview"
    assert re.search(rf"Improved: {IMPROVED}\. All \d+ checks passed\. The adapter is a candidate", text)
    assert f"{UNKNOWN} how many images are right: no judge" in text
    assert f"**improved**: {IMPROVED}" in card
    assert f"{UNKNOWN}:\n\n- how many images are right: no judge" in card


def test_an_advisory_judge_is_shown_and_changes_no_grade(fixed: CorrectionRecord, tmp_path: Path) -> None:
    assert fixed.scorecard is not None and fixed.scorecard.verdicts is not None
    doubt = "kappa 0.41 on 60 pairs; 0.6 on 50 wanted"
    advised = fixed.scorecard.verdicts.model_copy(update={"advisory": doubt})
    record = changed(tmp_path / "advised", looks=(PASSED,), verdicts=advised)

    text, card = page(record, tmp_path), model_card(record, "person")

    said = "nearer to the exemplars; <b>judge</b> calls 94% of 16 images right, of the base's 0%"
    assert f"Improved: {said} (advisory: {doubt})." in text
    assert f"{UNKNOWN} how many images are right: <b>judge</b> is advisory: {doubt}, and" in text
    assert f"advisory: {doubt}; higher is better; gates nothing" in text
    assert "**improved**: nearer to the exemplars" in card


def test_a_fixed_prompt_says_who_calls_how_many_images_right(fixed: CorrectionRecord, tmp_path: Path) -> None:
    text, card = page(fixed, tmp_path), model_card(fixed, "person")
    assert "Fixed: <b>judge</b> calls 94% of 16 images right, of the base's 0%. All" in text
    assert "right images, by <b>judge</b> change" in text, "a column of the overview"
    assert text.count("+94 points") == 2, "in the overview and in the scorecard"
    assert UNKNOWN not in text
    assert r"**fixed**: \<b\>judge\</b\> calls 94% of 16 images right, of the base's 0%" in card
    assert UNKNOWN not in card


def test_the_looks_say_at_how_many_images_drawing_stopped_and_why(
    improved: CorrectionRecord, tmp_path: Path
) -> None:
    line = "Looked at 8, 16 of at most 32 images: passed at 16"
    assert f"{line} (every condition on the prompt's images holds)." in page(improved, tmp_path)
    assert line in model_card(improved, "person")


def test_a_refused_prompt_says_what_was_not_drawn_and_why(refused: CorrectionRecord, tmp_path: Path) -> None:
    text, card = page(refused, tmp_path), model_card(refused, "person")
    for shown in (text, card):
        assert "Looked at 8 of at most 32 images: refused at 8" in shown
        assert "Guard prompts were not drawn: the prompt's own images were refused at 8." in shown
        assert "Hard negatives were not drawn" in shown
    assert "not drawn not drawn 1 min" in text, "in the overview"
    assert "Improved" not in text and "improved" not in card


def test_guard_prompts_whose_predictions_hardly_moved_are_named(tmp_path: Path) -> None:
    text = page(changed(tmp_path, looks=(PASSED,), guards=(), guard_shifts=(STILL,)), tmp_path)
    assert (
        f'No images were drawn of "{STILL.prompt}": the adapter moves the first predictions for them by at most 3% of the '
        "way to the corrected prompt's." in text
    )
    assert "were refused" not in text
    assert f"✓ corrected improved: {IMPROVED} −80" in text
    assert "not drawn 100% → 50%" in text, "in the overview"


def test_hard_negatives_whose_predictions_hardly_moved_are_named(tmp_path: Path) -> None:
    record = changed(tmp_path, looks=(PASSED,), negative_shifts=(STILL,))
    for shown in (page(record, tmp_path), model_card(record, "person")):
        assert f'No images were drawn of "{STILL.prompt}"' in shown


def test_hard_negatives_that_nobody_wanted_are_not_missed(refused: CorrectionRecord) -> None:
    assert refused.scorecard is not None
    settings = refused.scorecard.settings
    for change in ({"hard_negatives": 0}, {"stop_early": False}):
        card = refused.scorecard.model_copy(update={"settings": settings.model_copy(update=change)})
        assert negatives_not_drawn(refused.model_copy(update={"scorecard": card})) == ""


def test_a_lost_guard_image_is_told_although_the_prompts_own_images_passed(tmp_path: Path) -> None:
    record = changed(tmp_path, looks=(PASSED,))
    assert record.scorecard is not None
    first, *others = record.scorecard.guards
    record = changed(tmp_path, looks=(PASSED,), guards=(first.model_copy(update={"lost": 1}), *others))
    text = page(record, tmp_path)
    assert f"Not met: no guard images lost −80 [−111.4, −51.8] −80 [−111.4, −51.8] 1 of {first.n}" in text
    assert "Not approved: 1 of" in text
    assert "were not drawn" not in text


def test_a_comparison_of_versions_has_their_grades(
    improved: CorrectionRecord, refused: CorrectionRecord
) -> None:
    rows = compare_records(ComparedVersion("one", improved), ComparedVersion("other", refused))
    assert [(row.one, row.other) for row in rows if row.what == "grade"] == [("improved", "")]
