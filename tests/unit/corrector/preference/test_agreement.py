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
        (((20, 2, 0), (2, 25, 0), (0, 0, 0)), "advisory", "on 49 pairs; 50 are needed"),
        (COHEN, "advisory", "on 200 pairs; 0.6 is needed"),
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


def test_the_interval_of_kappa_is_seeded() -> None:
    first, second = sources(COHEN)

    same, other = agreement(first, second, seed=0), agreement(first, second, seed=1)

    assert same == agreed(COHEN)
    assert same.kappa is not None
    assert other.kappa is not None
    assert np.isclose(same.kappa.low, other.kappa.low, atol=0.02)
    assert same.kappa.low != other.kappa.low
