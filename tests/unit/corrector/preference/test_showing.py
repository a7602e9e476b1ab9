"""What a rater sees: every pair once, some again with sides swapped, in an order and on sides of the rater's own."""

from __future__ import annotations

from collections import Counter

from corrector.preference.showing import showings
from tests.support.surveys import defined


def test_every_pair_comes_once_and_repeats_come_later_with_sides_swapped() -> None:
    survey = defined(pairs=40, checks=4, repeats=0.25)
    for rater in ("ann", "ben"):
        sequence = showings(survey, rater)
        assert sequence == showings(survey, rater)
        first = {each.pair: (place, each.left) for place, each in enumerate(sequence) if not each.repeat}
        assert first.keys() == {pair.id for pair in survey.pairs}
        again = [(place, each) for place, each in enumerate(sequence) if each.repeat]
        assert len(again) == 10 and len({each.pair for _, each in again}) == 10
        counting = {pair.id for pair in survey.pairs if pair.expected is None}
        for place, each in again:
            before, left = first[each.pair]
            assert place - before > 8 and each.left != left and each.pair in counting


def test_raters_differ_in_order_and_sides_and_sides_are_even() -> None:
    survey = defined(pairs=40)
    sequences = [showings(survey, f"{rater}") for rater in range(50)]
    assert len({tuple(each.pair for each in sequence) for sequence in sequences}) == 50
    left = Counter(each.left for sequence in sequences for each in sequence)
    # Binomial: 2,000 draws, five standard deviations.
    assert abs(left["a"] - 1000) < 112
    of_first_pair = {
        each.left for sequence in sequences for each in sequence if each.pair == survey.pairs[0].id
    }
    assert of_first_pair == {"a", "b"}


def test_all_pairs_of_a_small_survey_can_be_repeated() -> None:
    sequence = showings(defined(pairs=3, repeats=1.0), "ann")
    assert sorted(each.pair for each in sequence) == sorted(2 * [f"{number:016x}" for number in range(3)])
