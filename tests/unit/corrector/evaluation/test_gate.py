"""Each condition of the gate turns on its own figure, at its own threshold."""

from typing import Any

import pytest

from corrector.evaluation import Measurements, judge
from corrector.evaluation.scorecard import (
    DistanceScore,
    DiversityScore,
    Fault,
    GuardScore,
    NearestScore,
    SafetyScore,
    SanityScore,
)
from corrector.evaluation.scorecard_figures import Interval
from corrector.prompts import EvaluationSettings, GateThresholds


def distance(extractor: str = "one", **changes: Any) -> DistanceScore:
    values = {
        "extractor": extractor,
        "metric": f"fid_{extractor}",
        "n": 16,
        "n_reference": 8,
        "fid_base": 90.0,
        "fid_corrected": 40.0,
        "fid_base_interval": Interval(low=80, value=90, high=99),
        "fid_corrected_interval": Interval(low=35, value=40, high=45),
        "fid_difference": Interval(low=-60, value=-50, high=-40),
        "kid_base": 0.2,
        "kid_corrected": 0.1,
        "relative_mmd": 0.1,
        "relative_mmd_p": 0.001,
        "permutations": 1000,
    }
    return DistanceScore.model_validate({**values, **changes})


def diversity(ratio: float, gates: bool = True) -> DiversityScore:
    return DiversityScore(
        measure="m",
        gates=gates,
        n=16,
        n_exemplars=16,
        base=2,
        corrected=1,
        exemplars=1,
        ratio=ratio,
        ratio_to_base=0.5,
    )


def nearest(share: float) -> NearestScore:
    return NearestScore(
        extractor="one",
        through_vae=True,
        n=16,
        n_exemplars=16,
        percentile=95,
        bound=1,
        near_base=0,
        near_corrected=share,
        median_base=2,
        median_corrected=2,
        median_exemplars=2,
        training_base=0.5,
        training_corrected=0.5,
        training_expected=0.5,
    )


def guard(drop: float, n: int = 8, passed: bool = True) -> GuardScore:
    return GuardScore(
        prompt="p",
        n=n,
        kept_base=1,
        kept_corrected=1 - drop,
        drop=drop,
        kept_by_extractor={"one": (1, 1 - drop)},
        change=0.1,
        ssim=0.9,
        passed=passed,
        note="",
    )


def safety(before: int, after: int) -> SafetyScore:
    return SafetyScore(
        scorer="s",
        threshold=0.5,
        n=40,
        unsafe_base=before,
        unsafe_corrected=after,
        highest_base=0.1,
        highest_corrected=0.1,
    )


def measured(**changes: Any) -> Measurements:
    values = {
        "prompt_name": "lying",
        "n": 16,
        "n_training": 8,
        "n_held_out": 8,
        "pair_seeds": tuple(range(16)),
        "settings": EvaluationSettings(),
        "distances": (distance("one"), distance("two")),
        "diversity": (diversity(0.8),),
        "nearest_training": (nearest(0.1),),
        "guards": (guard(0.05),),
        "safety": safety(1, 1),
        "sanity": SanityScore(n=32, faults=()),
    }
    return Measurements.model_validate({**values, **changes})


def refused(measurements: Measurements, **thresholds: Any) -> list[str]:
    return [c.name for c in judge(measurements, GateThresholds(**thresholds)).reasons if not c.passed]


def test_at_the_thresholds_it_passes() -> None:
    verdict = judge(measured(), GateThresholds())

    assert verdict.passed
    assert all(check.detail for check in verdict.reasons)


RISING = Interval(low=-9, value=-4, high=0.5)
FAULTS = {
    arm: SanityScore(
        n=32, faults=(Fault.model_validate({"arm": arm, "prompt": "p", "index": 3, "fault": "is flat"}),)
    )
    for arm in ("base", "corrected")
}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"sanity": FAULTS["corrected"]}, "sane images"),
        ({"safety": safety(0, 3)}, "safe images"),
        ({"safety": None}, "safe images"),
        ({"n": 15}, "enough images"),
        ({"n_held_out": 3}, "enough held-out exemplars"),
        (
            {"distances": (distance("one"), distance("two", relative_mmd_p=0.01))},
            "nearer to the held-out exemplars (relative MMD)",
        ),
        ({"distances": (distance("one"), distance("two", fid_difference=RISING))}, "FID falls"),
        ({"diversity": (diversity(0.9), diversity(0.79))}, "still diverse"),
        ({"nearest_training": (nearest(0.1), nearest(0.4))}, "no copies of training exemplars"),
        ({"guards": (guard(0.0), guard(0.125))}, "guard prompts not worse"),
        ({"guards": (*[guard(0.0)] * 9, guard(0.375, passed=False))}, "no single guard prompt lost"),
    ],
)
def test_one_figure_beyond_its_threshold_refuses(changes: dict[str, Any], name: str) -> None:
    assert refused(measured(**changes)) == [name]


def test_the_bases_own_faults_refuse_nothing() -> None:
    assert refused(measured(sanity=FAULTS["base"])) == []


def test_a_measure_that_does_not_gate_refuses_nothing() -> None:
    assert refused(measured(diversity=(diversity(0.9), diversity(0.1, gates=False)))) == []


def test_one_extractor_is_not_two_unless_the_user_says_so() -> None:
    one = measured(distances=(distance("one"),))

    assert refused(one) == ["nearer to the held-out exemplars (relative MMD)", "FID falls"]
    assert refused(one, min_extractors=1) == []


def test_two_of_three_extractors_are_enough() -> None:
    third = distance("three", relative_mmd_p=0.9, fid_difference=RISING)

    assert refused(measured(distances=(distance("one"), distance("two"), third))) == []


def test_every_threshold_can_be_moved() -> None:
    worse = measured(
        n=4,
        n_held_out=2,
        distances=(distance("one", relative_mmd_p=0.04, fid_difference=RISING),) * 2,
        diversity=(diversity(0.5),),
        nearest_training=(nearest(0.5),),
        guards=(guard(0.2),),
    )

    assert len(refused(worse)) == 7
    assert (
        refused(
            worse,
            min_images=4,
            min_held_out=2,
            max_p=0.05,
            max_fid_difference=1,
            min_diversity=0.5,
            max_near_share=0.5,
            max_guard_drop=0.2,
        )
        == []
    )
