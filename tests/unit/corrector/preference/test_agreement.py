"""Agreement of two sources has the published kappas and McNemar's p, and trust needs both kappa and pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from corrector.preference.agreement import (
    CHOICES,
    Agreement,
    agreement,
    consistent_verdicts,
    flip_rate,
    image_agreement,
)
from corrector.preference.survey import Choice

# Cohen 1968, Psychological Bulletin 70, 213-220, table 1, of 200 cases: kappa 0.492
COHEN = ((88, 14, 18), (10, 40, 10), (2, 6, 12))


def sources(table: tuple[tuple[int, ...], ...]) -> tuple[dict[str, Choice], dict[str, Choice]]:
    """Two sources whose confusion table is this."""
    cells = [(i, j) for i in range(3) for j in range(3) for _ in range(table[i][j])]
    first = {f"pair {n}": CHOICES[i] for n, (i, _) in enumerate(cells)}
    second = {f"pair {n}": CHOICES[j] for n, (_, j) in enumerate(cells)}
    return first, second


def agreed(table: tuple[tuple[int, ...], ...]) -> Agreement:
    return agreement(*sources(table))


def test_kappa_is_cohens_and_its_interval_has_the_width_of_the_normal_approximation() -> None:
    found = agreed(COHEN)

    assert (found.pairs, found.confusion) == (200, COHEN)
    assert found.agreement is not None
    assert found.agreement.value == 0.7
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(0.492, abs=5e-4)
    deviation = (0.7 * 0.3 / 200) ** 0.5 / (1 - 0.41)
    assert found.kappa.high - found.kappa.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CHOICES), st.sampled_from(CHOICES)), min_size=1, max_size=30))
def test_kappa_is_that_of_scikit_learn(verdicts: list[tuple[Choice, Choice]]) -> None:
    first, second = ({str(n): pair[side] for n, pair in enumerate(verdicts)} for side in (0, 1))

    found = agreement(first, second).kappa

    if len({verdict for pair in verdicts for verdict in pair}) == 1:
        assert found is None
    else:
        expected = cohen_kappa_score(list(first.values()), list(second.values()), labels=CHOICES)
        assert found is not None
        assert found.value == pytest.approx(expected)
        assert found.low <= found.high


def test_mcnemars_p_is_two_sided_and_looks_at_pairs_where_both_chose_an_arm() -> None:
    """Fagerland, Lydersen, Laake 2013, BMC Medical Research Methodology 13: 1 and 7 discordant pairs, p = 0.0703."""
    counts = agreed(((12, 7, 5), (1, 1, 0), (9, 9, 3)))

    assert counts.mcnemar_p == pytest.approx(0.0703, abs=5e-5)
    assert agreed(((12, 1, 0), (7, 1, 0), (0, 0, 0))).mcnemar_p == counts.mcnemar_p
    assert agreed(((3, 0, 2), (0, 4, 2), (1, 1, 1))).mcnemar_p == 1


def test_pairs_that_one_source_lacks_are_left_out() -> None:
    found = agreement({"one": "a", "two": "b"}, {"two": "b", "three": "a"})

    assert (found.pairs, found.confusion) == (1, ((0, 0, 0), (0, 1, 0), (0, 0, 0)))
    assert agreement({}, {}).kappa is None


@pytest.mark.parametrize(
    ("table", "status", "reason"),
    [
        (((20, 2, 0), (2, 26, 0), (0, 0, 0)), "trusted", "kappa 0.84"),
        (((20, 2, 0), (2, 25, 0), (0, 0, 0)), "advisory", "on 49 pairs; 0.6 on 50 wanted"),
        (COHEN, "advisory", "kappa 0.49 on 200 pairs; 0.6 on 50 wanted"),
        (((60, 0, 0), (0, 0, 0), (0, 0, 0)), "advisory", "not defined"),
    ],
)
def test_a_source_is_trusted_at_the_kappa_and_the_pairs_asked_for(
    table: tuple[tuple[int, ...], ...], status: str, reason: str
) -> None:
    found = agreed(table).trusted(kappa=0.6, pairs=50)

    assert found.status == status
    assert reason in found.reason


def test_only_verdicts_that_the_order_does_not_change_are_consistent() -> None:
    orders: dict[str, tuple[Choice, Choice]] = {
        "one": ("a", "a"),
        "two": ("a", "b"),
        "three": ("both bad", "both bad"),
        "four": ("b", "both bad"),
    }

    rate = flip_rate(orders)

    assert rate is not None
    assert rate.value == 0.5
    assert consistent_verdicts(orders) == {"one": "a", "three": "both bad"}
    assert flip_rate({}) is None


def test_on_single_images_an_image_is_right_if_people_prefer_it() -> None:
    """Cohen's kappa of 20 images, by scikit-learn; a judge who calls both of a pair right disagrees on one of them."""
    people: dict[str, Choice] = {str(n): "a" if n < 5 else "b" for n in range(9)}
    people["9"] = "both bad"
    judge = {str(n): (n < 5, n >= 4) for n in range(9)} | {"9": (False, False)}

    found = image_agreement(people, judge)

    wanted = [people[pair] == arm for pair in people for arm in ("a", "b")]
    given = [right for pair in people for right in judge[pair]]
    assert (found.pairs, found.labels) == (10, ("right", "wrong"))
    assert found.confusion == ((9, 0), (1, 10))
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(cohen_kappa_score(wanted, given))
    assert found.kappa.low <= found.kappa.value <= found.kappa.high == 1
    assert found.mcnemar_p == 1


def test_the_interval_of_kappa_is_over_pairs_and_not_over_their_images() -> None:
    """If both images of a pair are judged alike, twice as many images say no more."""
    people: dict[str, Choice] = {str(n): "b" if n % 2 else "a" for n in range(40)}
    opposed = {str(n): ((n % 2 == 0) != (n < 8), (n % 2 == 1) != (n < 8)) for n in range(40)}

    images = image_agreement(people, opposed).kappa
    pairs = agreement(people, {pair: "a" if a else "b" for pair, (a, _) in opposed.items()}).kappa

    assert images is not None
    assert pairs is not None
    assert images.value == pytest.approx(pairs.value)
    assert images.high - images.low == pytest.approx(pairs.high - pairs.low, rel=0.05)


def test_the_interval_of_kappa_is_seeded() -> None:
    first, second = sources(COHEN)

    same, other = agreement(first, second, seed=0), agreement(first, second, seed=1)

    assert same == agreed(COHEN)
    assert same.kappa is not None
    assert other.kappa is not None
    assert np.isclose(same.kappa.low, other.kappa.low, atol=0.02)
    assert same.kappa.low != other.kappa.low
