"""From images to a verdict: right corrections pass, wrong ones are refused for the right reason."""

import json

import pytest
import torch
from torch import Tensor

from corrector.evaluation import Exemplars, FeatureMemory, Scorecard, judge
from corrector.evaluation.score import score
from corrector.evaluation.scorecard import Look
from corrector.prompts import GateThresholds
from tests.support.scenes import FAILING, pictures
from tests.unit.corrector.evaluation.compared import (
    EXEMPLARS,
    GUARD_PROMPTS,
    PROMPT,
    SETTINGS,
    THRESHOLDS,
    Colours,
    Draws,
    base,
    compared,
    fixed,
    leaking,
    refused,
    scored,
)

pytestmark = pytest.mark.xdist_group("scene features")

NEARER, STYLE = "nearer to the held-out exemplars", "nearer by more than style"
COPIES = "no copies of training exemplars"
FEW = compared(6, guards=False)


def with_value(value: float, place: int) -> Draws:
    """Right pictures, of which the one of the seed `place` holds `value`."""

    def draws(text: str, seed: int) -> Tensor:
        image = fixed(text, seed).clone()
        if seed == place:
            image[0, 0, 0] = value
        return image

    return draws


@pytest.fixture(scope="module")
def card() -> Scorecard:
    return scored(compared(), fixed)


def test_a_correction_that_works_passes(card: Scorecard) -> None:
    assert refused(card) == []
    assert (card.verdict.passed, card.verdict.grade) == (True, "improved")
    assert [(test.extractor, test.n, test.n_reference) for test in card.nearer] == [
        ("efficientnet_lite0", 16, 8),
        ("opennsfw", 16, 8),
    ]
    for test in card.nearer:
        assert test.p == test.restyled_p == pytest.approx(1 / 2001)
    for distance in card.distances:
        assert distance.fid_difference.high < 0
        assert distance.fid_difference.value == pytest.approx(distance.fid_corrected - distance.fid_base)
    assert {(s.against, s.pairing) for s in card.similarity} == {
        (against, pairing)
        for against in ("held-out", "training")
        for pairing in ("all pairs", "best exemplar")
    }
    assert [(guard.prompt, guard.lost, guard.passed) for guard in card.guards] == [
        (prompt, 0, True) for prompt in GUARD_PROMPTS
    ]
    assert card.sanity.faults == ()
    assert card.pair_seeds == tuple(range(16))
    assert {missing.name for missing in card.not_run} >= {"fid_inception", "PickScore"}
    assert {
        "nearer than the base, opennsfw",
        "nearer than the re-styled base, opennsfw",
        "fid_opennsfw",
        "SSIM, training, best exemplar",
        f"guard: {GUARD_PROMPTS[0]}",
        "unsafe images",
    } <= {figure.name for figure in card.figures()}


def test_a_scorecard_survives_json_and_can_be_judged_again(card: Scorecard) -> None:
    read = Scorecard.model_validate_json(card.model_dump_json())

    assert read == card
    assert judge(read, read.thresholds) == card.verdict
    assert not judge(read, GateThresholds(min_images=17)).passed


def test_a_scorecard_of_an_earlier_version_is_read(card: Scorecard) -> None:
    written = json.loads(card.model_dump_json())
    for key in ("nearer", "false_route", "verdicts", "looks", "guard_shifts"):
        del written[key]
    written["distances"][0]["relative_mmd_p"] = 0.001
    written["diversity"][0]["ratio_to_base"] = 0.9
    written["guards"][0].update(drop=0.25)
    for guard in written["guards"]:
        del guard["lost"]

    read = Scorecard.model_validate(written)

    assert read.distances == card.distances
    assert [guard.lost for guard in read.guards] == [1, 0, 0]
    assert NEARER in [check.name for check in judge(read, read.thresholds).reasons if not check.passed]


def test_the_last_look_is_kept_and_bounds_the_error_rate() -> None:
    looks = tuple(
        Look.model_validate({"n": n, "most": 16, "share": share, "decision": decision, "why": "because"})
        for n, share, decision in ((4, 0.1, "more"), (6, 0.9, "passed"))
    )

    card = scored(FEW, fixed, looks=looks)

    assert card.looks == looks
    nearer = next(check for check in card.verdict.reasons if check.name == NEARER)
    assert nearer.value == 1 / 64
    assert nearer.threshold == pytest.approx(0.009)


def test_nothing_changed_is_no_correction() -> None:
    assert {NEARER, STYLE} <= set(refused(scored(FEW, base)))


def test_copies_of_one_training_exemplar_are_refused() -> None:
    card = scored(FEW, lambda text, seed: EXEMPLARS.training[0])

    assert {"still diverse", COPIES} <= set(refused(card))


def test_copies_seen_through_a_vae_are_found_among_exemplars_seen_through_it() -> None:
    def blurred(images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)

    training, held_out = EXEMPLARS.training[:6], EXEMPLARS.held_out[:6]
    copies = blurred(training)

    unseen, seen = (
        scored(FEW, lambda text, seed: copies[seed], exemplars=Exemplars(training, held_out, decoded))
        for decoded in (None, (copies, blurred(held_out)))
    )

    assert COPIES not in refused(unseen)
    (check,) = [check for check in unseen.verdict.reasons if check.name == COPIES]
    assert "may hide behind its texture" in check.detail
    assert COPIES in refused(seen)
    assert seen.nearest_training[0].near_corrected == 1
    assert seen.nearest_training[0].preference_p is not None
    assert seen.nearest_training[0].preference_p < 0.01


def test_one_lost_image_of_a_guard_prompt_is_refused_by_name() -> None:
    card = scored(compared(), leaking(GUARD_PROMPTS[1], [17]))

    assert refused(card) == ["no guard images lost"]
    assert [guard.lost for guard in card.guards] == [0, 1, 0]
    assert [guard.passed for guard in card.guards] == [True, False, True]
    assert f'"{GUARD_PROMPTS[1]}" 1 of 4' in card.verdict.reasons[-1].detail


def test_other_pictures_of_the_guard_prompts_are_no_loss() -> None:
    def afresh(text: str, seed: int) -> Tensor:
        return fixed(text, seed if text == PROMPT else seed + 4)

    card = scored(compared(), afresh)

    assert refused(card) == []
    assert all(guard.change is not None and guard.change > 0.5 for guard in card.guards)


def test_without_guards_or_exemplars_the_gate_does_not_pass_for_want_of_evidence() -> None:
    card = scored(FEW, fixed, exemplars=Exemplars(EXEMPLARS.training, EXEMPLARS.held_out[:1]))

    assert {"enough held-out exemplars", "no guard images lost"} <= set(refused(card))
    assert {"distances", "guard prompts"} <= {missing.name for missing in card.not_run}
    lenient = judge(card, GateThresholds(require_guards=False))
    assert "no guard images lost" not in {check.name for check in lenient.reasons if not check.passed}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite_are_a_fault_and_not_a_crash(value: float) -> None:
    card = scored(FEW, with_value(value, 3))

    assert [(fault.arm, fault.index) for fault in card.sanity.faults] == [("corrected", 3)]
    assert f'image 3 of "{PROMPT}" holds values that are not finite' in card.verdict.reasons[0].detail
    assert not card.verdict.passed
    assert card.nearer == ()
    assert Scorecard.model_validate_json(card.model_dump_json()) == card


def test_without_any_held_out_exemplar_guards_are_measured_all_the_same() -> None:
    card = scored(compared(6), fixed, exemplars=Exemplars(EXEMPLARS.training, EXEMPLARS.held_out[:0]))

    assert NEARER in refused(card)
    assert "distances" in {missing.name for missing in card.not_run}
    assert [guard.lost for guard in card.guards] == [0, 0, 0]


def test_other_extractors_plug_in_and_exemplars_may_have_another_size() -> None:
    larger = torch.nn.functional.interpolate(EXEMPLARS.held_out, scale_factor=2)

    card = scored(
        FEW,
        fixed,
        memory=FeatureMemory([Colours()]),
        exemplars=Exemplars(EXEMPLARS.training, larger),
    )

    assert [d.metric for d in card.distances] == ["fid_colours"]
    assert card.safety is not None
    assert NEARER in refused(card), "one extractor is not two"


def test_arms_that_are_not_pairs_are_refused() -> None:
    images = pictures(FAILING, range(6))
    for before, after, training in (
        (images, images[1:], images),
        (images[1:], images[1:], images),
        (images, images, images[0]),
    ):
        with pytest.raises(ValueError, match=r"pairs|expected \[N, 3, H, W\]"):
            score(
                "lying",
                FEW,
                before,
                after,
                Exemplars(training, images),
                settings=SETTINGS,
                thresholds=THRESHOLDS,
            )
