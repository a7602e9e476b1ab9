"""A look spends its share of the error rate, and stops where the verdict on the prompt's own images is clear."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrector.evaluation.looks import decide
from corrector.evaluation.paired_test import paired_test
from corrector.evaluation.scorecard import Look
from corrector.prompts import EvaluationSettings, GateThresholds, look_shares
from tests.unit.corrector.evaluation.measurements import (
    diversity,
    fault,
    guard,
    measured,
    nearer,
    verdicts,
)

SHARES = look_shares(EvaluationSettings(images=32, look_images=8), GateThresholds(min_images=16))


def decided(n: int, p: float = 0.0005, **changes: object) -> Look:
    tests = (nearer("one", p), nearer("two", p))
    return decide(measured(n=n, **{"nearer": tests, **changes}), SHARES, GateThresholds())


def test_the_error_rate_is_spent_as_the_square_of_the_share_of_images() -> None:
    assert SHARES == {8: 0, 16: 0.25, 24: 0.3125, 32: 0.4375}


@given(st.integers(2, 300), st.integers(2, 300), st.integers(2, 300))
def test_the_shares_add_up_to_one_and_none_is_spent_on_too_few_images(
    most: int, step: int, least: int
) -> None:
    settings = EvaluationSettings(images=most, look_images=step)

    shares = look_shares(settings, GateThresholds(min_images=least))

    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares) == sorted(set(shares))
    assert max(shares) == most
    assert all(share == 0 for n, share in shares.items() if n < min(least, most))
    assert all(share > 0 for n, share in shares.items() if n >= min(least, most))


@pytest.mark.parametrize("settings", [{"stop_early": False}, {"look_images": 32}, {"look_images": 100}])
def test_one_look_may_spend_everything(settings: dict[str, object]) -> None:
    whole = EvaluationSettings.model_validate({"images": 32, **settings})
    assert look_shares(whole, GateThresholds()) == {32: 1}


def test_a_look_passes_below_its_share_and_draws_more_above_it() -> None:
    assert (decided(16, p=0.0024).decision, decided(16, p=0.0024).share) == ("passed", 0.25)
    assert decided(16, p=0.0026).decision == "more"
    assert decided(24, p=0.0026).decision == "passed"
    assert decided(32, p=0.0043).decision == "passed"
    assert decided(32, p=0.0044).decision == "refused"


def test_no_p_passes_before_the_least_number_of_images() -> None:
    look = decided(8, p=1e-9)

    assert look.decision == "more"


def test_a_p_that_more_images_would_hardly_save_is_refused() -> None:
    assert [decided(n, p=0.2).decision for n in (8, 16, 24, 32)] == ["more", "more", "refused", "refused"]
    assert decided(8, p=0.4).decision == "refused"
    assert "nearer to the held-out exemplars" in decided(8, p=0.4).why
    style = decided(8, nearer=(nearer("one", 0.001, 0.6), nearer("two", 0.001, 0.6)))
    assert (style.decision, style.why) == ("refused", "not met: nearer by more than style")


def test_only_as_many_extractors_count_as_are_wanted() -> None:
    tests = (nearer("one"), nearer("two"), nearer("three", 0.9, 0.9))

    assert decided(16, nearer=tests).decision == "passed"


def test_images_that_are_no_pictures_are_refused_at_once() -> None:
    look = decided(8, sanity=fault("corrected"))

    assert (look.decision, look.why) == ("refused", "not met: sane images")


def test_what_more_images_may_change_is_refused_at_the_end_only() -> None:
    assert [decided(n, diversity=(diversity(0.2),)).decision for n in (16, 32)] == ["more", "refused"]
    assert [decided(n, verdicts=verdicts(0, 8)).decision for n in (16, 32)] == ["more", "refused"]


def test_guards_are_not_looked_at() -> None:
    assert decided(16, guards=(guard(lost=9),)).decision == "passed"
    assert decided(16, guards=()).decision == "passed"


def test_the_error_rate_holds_over_all_looks() -> None:
    """Pairs that do not differ; at an error rate of 20 % more than 58 of 200 pass with a probability of 1e-3."""
    thresholds = GateThresholds(max_p=0.2)
    passed = 0
    for repeat in range(200):
        draws = torch.randn(69, 4, generator=torch.Generator().manual_seed(repeat))
        decision, looks = "more", iter(SHARES)
        while decision == "more":
            n = next(looks)
            p = paired_test(draws[:n], draws[32 : 32 + n], draws[64:], permutations=199, seed=repeat).p
            tests = (nearer("one", p), nearer("two", p))
            decision = decide(measured(n=n, nearer=tests), SHARES, thresholds).decision
        passed += decision == "passed"

    assert 0 < passed <= 58
