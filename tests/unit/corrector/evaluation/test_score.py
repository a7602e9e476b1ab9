"""From images to a verdict: right corrections pass, wrong ones are refused for the right reason."""

from typing import Any

import pytest
import torch
from torch import Tensor

from corrector.evaluation import GuardImages, Scorecard, judge, score
from corrector.evaluation.features import default_extractors
from corrector.prompts import EvaluationSettings, GateThresholds
from tests.support.scenes import FAILING, GUARDS, pictures

N = 16


class ColourFeatures:
    """A user's own extractor: the mean colour of four quadrants."""

    name = "colours"
    dimensions = 12

    def __call__(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def arguments(images: int = N, **changes: Any) -> dict[str, Any]:
    """A correction that works: anomalies before, true scenes after, guards drawn afresh."""
    guards = [
        GuardImages(scene.pose, pictures(scene, range(4)), pictures(scene, range(50, 54))) for scene in GUARDS
    ]
    return {
        "prompt_name": "lying",
        "base": pictures(FAILING, range(images), broken=True),
        "corrected": pictures(FAILING, range(images)),
        "training": pictures(FAILING, range(100, 108)),
        "held_out": pictures(FAILING, range(200, 208)),
        "guards": guards,
        "pair_seeds": list(range(images)),
        "settings": EvaluationSettings(images=images, guard_images=4, permutations=500, bootstrap=200),
        "thresholds": GateThresholds(),
        **changes,
    }


def few(images: int = 6, **changes: Any) -> dict[str, Any]:
    """The same with fewer images, without guards and in one extractor, for what fewer images show as well."""
    given = arguments(images, guards=[], extractors=default_extractors()[:1])
    exemplars = {name: given[name][:6] for name in ("training", "held_out")}
    return {**given, **exemplars, **changes}


def refused(card: Scorecard) -> set[str]:
    return {check.name for check in card.verdict.reasons if not check.passed}


@pytest.fixture(scope="module")
def card() -> Scorecard:
    return score(**arguments())


def test_a_correction_that_works_passes(card: Scorecard) -> None:
    assert refused(card) == set()
    assert card.verdict.passed
    assert [d.metric for d in card.distances] == ["fid_efficientnet_lite0", "fid_opennsfw"]
    for distance in card.distances:
        assert (distance.n, distance.n_reference) == (N, 8)
        assert distance.fid_difference.high < 0
        assert distance.fid_difference.value == pytest.approx(distance.fid_corrected - distance.fid_base)
        assert distance.relative_mmd == pytest.approx(distance.kid_base - distance.kid_corrected)
    assert {(s.against, s.pairing) for s in card.similarity} == {
        (against, pairing)
        for against in ("held-out", "training")
        for pairing in ("all pairs", "best exemplar")
    }
    assert [guard.prompt for guard in card.guards] == [scene.pose for scene in GUARDS]
    assert card.sanity.faults == ()
    assert {missing.name for missing in card.not_run} >= {"fid_inception", "PickScore"}
    names = [figure.name for figure in card.figures()]
    assert {
        "fid_opennsfw",
        "SSIM, training, best exemplar",
        f"guard: {GUARDS[0].pose}",
        "unsafe images",
    } <= set(names)


def test_a_scorecard_survives_json_and_can_be_judged_again(card: Scorecard) -> None:
    read = Scorecard.model_validate_json(card.model_dump_json())

    assert read == card
    assert judge(read, read.thresholds) == card.verdict
    assert not judge(read, GateThresholds(min_images=17)).passed


def test_nothing_changed_is_no_correction() -> None:
    card = score(**few(corrected=few()["base"]))

    assert {"nearer to the held-out exemplars (relative MMD)", "FID falls"} <= refused(card)


def test_copies_of_one_training_exemplar_are_refused() -> None:
    card = score(**few(corrected=few()["training"][:1].repeat(6, 1, 1, 1)))

    assert {"still diverse", "no copies of training exemplars"} <= refused(card)


def test_copies_seen_through_a_vae_are_found_among_exemplars_seen_through_it() -> None:
    def blurred(images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)

    given = few()
    copies = blurred(given["training"])

    unseen = score(**{**given, "corrected": copies})
    seen = score(
        **{**given, "corrected": copies},
        decoded_exemplars=(blurred(given["training"]), blurred(given["held_out"])),
    )

    name = "no copies of training exemplars"
    assert name not in refused(unseen)
    (check,) = [check for check in unseen.verdict.reasons if check.name == name]
    assert "may hide behind its texture" in check.detail
    assert name in refused(seen)
    assert seen.nearest_training[0].near_corrected == 1


def test_a_guard_prompt_that_is_lost_is_refused_by_name() -> None:
    guards = arguments()["guards"]
    guards[1] = GuardImages(guards[1].prompt, guards[1].base, pictures(FAILING, range(60, 64)))

    card = score(
        **arguments(
            guards=guards, thresholds=GateThresholds(min_extractors=1), extractors=default_extractors()[:1]
        )
    )

    assert refused(card) == {"guard prompts not worse", "no single guard prompt lost"}
    assert [guard.passed for guard in card.guards] == [True, False, True]
    assert f'"{guards[1].prompt}"' in card.verdict.reasons[-1].detail


def test_without_guards_or_exemplars_the_gate_does_not_pass_for_want_of_evidence() -> None:
    card = score(**few(held_out=few()["held_out"][:1]))

    assert {"enough held-out exemplars", "FID falls", "guard prompts not worse"} <= refused(card)
    assert {"distances", "guard prompts"} <= {missing.name for missing in card.not_run}
    lenient = judge(card, GateThresholds(require_guards=False))
    assert {check.name for check in lenient.reasons if not check.passed}.isdisjoint(
        {"guard prompts not worse", "no single guard prompt lost"}
    )


def test_images_that_are_not_finite_are_a_fault_and_not_a_crash() -> None:
    corrected = few()["corrected"]
    corrected[3, 0, 0, 0] = torch.inf

    card = score(**few(corrected=corrected))

    assert (card.sanity.faults[0].arm, card.sanity.faults[0].index) == ("corrected", 3)
    assert 'image 3 of "lying" holds values that are not finite' in card.verdict.reasons[0].detail
    assert not card.verdict.passed
    assert card.distances == ()
    assert Scorecard.model_validate_json(card.model_dump_json()) == card


def test_other_extractors_plug_in_and_exemplars_may_have_another_size() -> None:
    larger = torch.nn.functional.interpolate(few()["held_out"], scale_factor=2)

    card = score(**few(extractors=[ColourFeatures()], held_out=larger))

    assert [d.metric for d in card.distances] == ["fid_colours"]
    assert card.safety is not None
    assert "FID falls" in refused(card), "one extractor is not two"


def test_arms_that_are_not_pairs_are_refused() -> None:
    base = few()["base"]
    for changes in (
        {"corrected": base[1:]},
        {"pair_seeds": [1, 2]},
        {"training": base[0]},
        {"extractors": ()},
    ):
        with pytest.raises(ValueError, match=r"pairs|expected \[N, 3, H, W\]|no feature extractor"):
            score(**few(**changes))
