"""The error of the whole sequence of looks is what the docstring says, and a clear rate stops early."""

import numpy as np
import pytest

from corrector.diagnosis import SequentialTest
from corrector.diagnosis.failure_rate import MAX_ERROR, error_rates, wilson

TEST = SequentialTest(fails_at=0.2, images=32, block=8)


def test_the_bounds_are_wilsons() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
    assert wilson(81, 263, 1.959964) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, 1.959964) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize("fails_at", [0.02, 0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("images", [8, 32, 64])
def test_a_wrong_verdict_is_as_rare_as_promised(fails_at: float, images: int) -> None:
    z = SequentialTest(fails_at, images, 8).z
    for rate in np.linspace(0.01, 0.99, 50):
        fails, holds = error_rates(fails_at, float(rate), images, 8, z)
        assert (fails if rate <= fails_at else holds) <= MAX_ERROR + 1e-12
    assert max(error_rates(fails_at, fails_at, images, 8, z)) <= MAX_ERROR


def test_the_exact_rates_are_those_of_simulated_prompts() -> None:
    rng = np.random.default_rng(0)
    verdicts = [TEST.verdict(list(rng.random(32) < 0.3)) for _ in range(4000)]
    exact = error_rates(0.2, 0.3, 32, 8, TEST.z)
    seen = [np.mean([verdict == name for verdict in verdicts]) for name in ("fails", "holds")]
    assert seen == pytest.approx(exact, abs=0.025)


def test_several_looks_widen_the_interval() -> None:
    assert TEST.z > SequentialTest(0.2, 8, 8).z
    assert TEST.interval(16, 32).level > 0.9
    assert (TEST.interval(16, 32).low, TEST.interval(16, 32).high) == wilson(16, 32, TEST.z)


@pytest.mark.parametrize(
    ("failures", "verdict"),
    [
        ([True] * 8, "fails"),
        ([True] * 7, "undecided"),
        ([False] * 32, "holds"),
        ([False] * 8, "undecided"),
        ([True] * 8 + [False] * 24, "fails"),  # a look ends the test
        ([True, False, False, False] * 8, "undecided"),
        ([], "undecided"),
    ],
)
def test_a_verdict_comes_with_the_first_look_that_has_one(failures: list[bool], verdict: str) -> None:
    assert TEST.verdict(failures) == verdict
