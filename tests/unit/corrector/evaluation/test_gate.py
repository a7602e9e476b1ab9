"""Each condition of the gate turns on its own figure, at its own threshold, and the verdict says what it cannot know."""

from typing import Any

import pytest

from corrector.evaluation import Measurements, judge
from corrector.prompts import GateThresholds
from tests.unit.corrector.evaluation.measurements import (
    distance,
    diversity,
    fault,
    guard,
    look,
    measured,
    nearer,
    nearest,
    right,
    safety,
    shift,
    verdicts,
)

NEARER, STYLE = "nearer to the held-out exemplars", "nearer by more than style"
COPIES = "no copies of training exemplars"


def refused(measurements: Measurements, **thresholds: Any) -> list[str]:
    return [c.name for c in judge(measurements, GateThresholds(**thresholds)).reasons if not c.passed]


def test_at_the_thresholds_it_passes_and_every_condition_gives_its_reason() -> None:
    verdict = judge(measured(), GateThresholds())

    assert verdict.passed
    assert all(check.detail for check in verdict.reasons)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"sanity": fault("corrected")}, "sane images"),
        ({"safety": safety(0, 3)}, "safe images"),
        ({"safety": None}, "safe images"),
        ({"n": 15}, "enough images"),
        ({"n_held_out": 1}, "enough held-out exemplars"),
        ({"nearer": (nearer("one"), nearer("two", p=0.01))}, NEARER),
        ({"nearer": (nearer("one"), nearer("two", restyled_p=0.01))}, STYLE),
        ({"nearer": (nearer("one"), nearer("two", restyled_reduction=0.039))}, STYLE),
        ({"diversity": (diversity(0.9), diversity(0.29))}, "still diverse"),
        ({"diversity": ()}, "still diverse"),
        ({"nearest_training": (nearest(0.1), nearest(0.4))}, COPIES),
        ({"nearest_training": (nearest(0.9, preference_p=0.8),)}, COPIES),
        ({"nearest_training": (nearest(0.4, preference_p=None),)}, COPIES),
        ({"nearest_training": ()}, COPIES),
        ({"guards": (guard(), guard(lost=1))}, "no guard images lost"),
        ({"guards": ()}, "no guard images lost"),
        ({"guards": (), "guard_shifts": (shift(0.05), shift(0.11))}, "no guard images lost"),
        ({"guard_shifts": (shift(0.3, "p"), shift(0.11))}, "no guard images lost"),
        ({"verdicts": verdicts(0, 12)}, "right images"),
        ({"verdicts": verdicts(12, 16)}, "right images"),
        ({"verdicts": verdicts(0, 16, right(24, 24, 24), right(24, 16, 24))}, "guard images stay right"),
    ],
)
def test_one_figure_beyond_its_threshold_refuses(changes: dict[str, Any], name: str) -> None:
    assert refused(measured(**changes)) == [name]


@pytest.mark.parametrize(
    "changes",
    [
        {"sanity": fault("base")},
        {"diversity": (diversity(0.9), diversity(0.1, gates=False))},
        {"distances": ()},
        {"distances": (distance("one", high=5),)},
        {"nearest_training": (nearest(0.4, preference_p=0.06),)},
        {"verdicts": verdicts(0, 16, right(24, 18, 24))},
        {"guard_shifts": (shift(0.9, "p"), shift(0.1))},
        {"guards": (), "guard_shifts": (shift(0.05), shift(0.1))},
    ],
    ids=[
        "a fault of the base",
        "a measure that does not gate",
        "no FID",
        "a FID that may rise",
        "near images that do not prefer training exemplars",
        "guard images that a judge sees change by chance",
        "predictions that moved, of a guard prompt whose images are whole",
        "predictions that did not move",
    ],
)
def test_what_does_not_gate_refuses_nothing(changes: dict[str, Any]) -> None:
    assert refused(measured(**changes)) == []


def test_fid_gates_where_a_bound_is_given() -> None:
    assert refused(measured(), max_fid_difference=-39.9) == []
    assert refused(measured(), max_fid_difference=-40) == ["FID falls"]
    assert refused(measured(distances=()), max_fid_difference=0) == ["FID falls"]


def test_one_extractor_is_not_two_unless_the_user_says_so() -> None:
    one = measured(nearer=(nearer("one"),))

    assert refused(one) == [NEARER, STYLE]
    assert refused(one, min_extractors=1) == []


def test_two_of_three_extractors_are_enough() -> None:
    assert refused(measured(nearer=(nearer("one"), nearer("two"), nearer("three", 0.9, 0.9)))) == []


def test_every_threshold_can_be_moved() -> None:
    worse = measured(
        n=4,
        n_held_out=2,
        nearer=(nearer("one", 0.04, 0.04),) * 2,
        diversity=(diversity(0.2),),
        nearest_training=(nearest(0.5),),
        guards=(guard(lost=3),),
        verdicts=verdicts(2, 8, right(24, 16, 24)),
    )
    moved = {
        "min_images": 4,
        "max_p": 0.05,
        "min_diversity": 0.2,
        "max_near_share": 0.5,
        "max_lost_guard_images": 3,
        "min_right_rate": 0.2,
        "max_right_p": 0.003,
    }

    assert len(refused(worse)) == 8
    assert refused(worse, **{**moved, "max_right_p": 0.02}) == ["guard images stay right"]
    assert refused(worse, **moved) == ["right images"]


def test_the_last_look_may_spend_only_its_share_of_the_error_rate() -> None:
    early = measured(
        looks=(look("passed", share=0.25),), nearer=(nearer("one", 0.002), nearer("two", 0.0026))
    )

    assert refused(early) == [NEARER]
    assert refused(early.model_copy(update={"looks": (look("passed", n=32),)})) == []


def test_a_refused_look_leaves_guards_out_and_guards_that_were_drawn_are_judged() -> None:
    early = {"looks": (look("refused"),), "nearer": (nearer("one"), nearer("two", p=0.6))}

    assert refused(measured(**early, guards=())) == [NEARER]
    names = [check.name for check in judge(measured(**early, guards=()), GateThresholds()).reasons]
    assert "no guard images lost" not in names
    assert refused(measured(**early, guards=(guard(lost=2),))) == [NEARER, "no guard images lost"]


def test_predictions_say_in_words_why_no_guard_image_was_drawn() -> None:
    verdict = judge(measured(guard_shifts=(shift(0.9, "p"), shift(0.06), shift(0.04))), GateThresholds())

    detail = verdict.reasons[-1].detail
    assert "predictions for 2 guard prompts move by at most 6%" in detail
    assert 'of "p" 0 of 24 images' in detail


def test_without_guard_prompts_a_passed_look_is_not_enough_unless_the_user_says_so() -> None:
    passed = measured(looks=(look("passed"),), guards=())

    assert refused(passed) == ["no guard images lost"]
    assert refused(passed, require_guards=False) == []


def test_the_grade_is_fixed_only_where_a_judge_says_so() -> None:
    assert judge(measured(), GateThresholds()).grade == "improved"
    assert judge(measured(verdicts=verdicts()), GateThresholds()).grade == "fixed"
    assert judge(measured(verdicts=verdicts(0, 8)), GateThresholds()).grade is None
    assert judge(measured(n=4), GateThresholds()).grade is None


@pytest.mark.parametrize("after", [0, 16])
def test_an_advisory_judge_neither_refuses_nor_fixes_and_is_shown(after: int) -> None:
    doubt = "kappa 0.41 on 60 pairs; 0.6 on 50 wanted"
    harm = right(24, 24, 16)
    advised = measured(
        verdicts=verdicts(0, after, harm).model_copy(update={"advisory": doubt}), guards=(guard(),)
    )

    verdict = judge(advised, GateThresholds())

    assert (verdict.passed, verdict.grade) == (True, "improved")
    assert verdict.unknown[0].startswith(f"how many images are right: someone is advisory: {doubt}, and")
    shown = [figure for figure in advised.figures() if figure.name.startswith("right images")]
    assert len(shown) == 2
    assert not any(figure.gates for figure in shown)
    assert f"advisory: {doubt}" in shown[0].note_text
    assert refused(advised, min_grade="fixed") == ["right images"]


def test_the_grade_fixed_can_be_required_and_needs_a_judge() -> None:
    verdict = judge(measured(), GateThresholds(min_grade="fixed"))

    (check,) = [check for check in verdict.reasons if not check.passed]
    assert check.name == "right images"
    assert "needs a judge of images" in check.detail
    assert judge(measured(verdicts=verdicts()), GateThresholds(min_grade="fixed")).grade == "fixed"


def test_the_verdict_says_what_it_cannot_know() -> None:
    def unknown(**changes: Any) -> tuple[str, ...]:
        return judge(measured(**changes), GateThresholds()).unknown

    right_images, broken_guards = unknown()
    assert "how many images are right" in right_images
    assert "whether guard images broke" in broken_guards
    assert unknown(guards=()) == (right_images,)
    assert unknown(verdicts=verdicts()) == ()
    (copies,) = unknown(verdicts=verdicts(), n_training=3, n_held_out=2)
    assert copies.startswith("whether images copy training exemplars: 5 exemplars cannot decide it")
