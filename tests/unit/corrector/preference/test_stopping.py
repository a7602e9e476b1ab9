"""The stopping rule keeps its error rate whoever looks how often, and ends early where the preference is plain."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.preference.ballot_table import BallotTable
from corrector.preference.stopping import Stopping, stopping
from corrector.preference.survey import Ballot, StoppingRule, Survey
from tests.support.surveys import defined
from tests.unit.corrector.preference.ballots import ballot, coin_votes

RATERS = ["ann", "bob", "eve"]


def stopped(survey: Survey, votes: list[Ballot]) -> Stopping:
    return stopping(BallotTable(survey, votes))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9]))
def test_every_look_says_what_the_looks_before_said(seed: int, share_of_b: float) -> None:
    """Asking after any ballot gives a prefix of the final looks, and a decision stays."""
    survey = defined(pairs=11)
    votes = coin_votes(survey, [*RATERS, "joe"], seed, share_of_b)
    last = stopped(survey, votes)

    for until in range(0, len(votes), 5):
        now = stopped(survey, votes[:until])
        assert now.looks == last.looks[: len(now.looks)]
        assert now.decision in ("more votes", last.decision)


def test_two_equal_arms_end_with_a_preference_no_more_often_than_stated() -> None:
    """Of 100 surveys at 20 %, with votes that agree on a pair, more than 33 are wrong with a probability of 1e-3."""
    survey = defined(pairs=9).model_copy(update={"stopping": StoppingRule(level=0.2, min_votes_per_pair=2)})

    wrong = [
        stopped(survey, coin_votes(survey, RATERS, seed)).decision == "preference" for seed in range(100)
    ]

    assert 5 < sum(wrong) <= 33


@pytest.mark.parametrize("arm", ["a", "b"])
def test_a_plain_preference_ends_the_survey_early(arm: str) -> None:
    survey = defined(pairs=40)

    found = stopped(survey, coin_votes(survey, RATERS, seed=5, share_of_b=arm == "b", agreement=0.95))

    assert (found.decision, found.preferred, found.may_end) == ("preference", arm, True)
    assert found.looks[-1].complete <= 20
    bound = found.looks[-1].bound
    assert bound is not None
    assert abs(found.looks[-1].mean_score) > bound


def test_without_a_preference_the_survey_may_end_when_all_pairs_are_complete() -> None:
    survey = defined(pairs=40, checks=3)
    votes = [
        ballot(survey, rater, place, "b" if place % 2 else "a", left="a" if place % 4 < 2 else "b")
        for rater in RATERS
        for place in range(40)
    ]

    found = stopped(survey, votes)

    assert (found.decision, found.preferred, found.pairs) == ("no preference found", None, 40)
    assert found.looks[-1].complete == 40
    assert stopped(survey, votes[:-1]).decision == "more votes"


def test_votes_of_excluded_raters_complete_no_pair() -> None:
    survey = defined(pairs=20)
    fast = [ballot(survey, "joe", place, "b", seconds=0.1) for place in range(20)]
    votes = coin_votes(survey, RATERS[:2], seed=1)

    assert stopped(survey, [*fast, *votes]).looks == ()

    more = coin_votes(survey, RATERS[2:], seed=2)
    assert stopped(survey, [*fast, *votes, *more]).looks[-1].complete > 0


def test_so_few_pairs_cannot_show_a_preference() -> None:
    """Five pairs, all for "b": two-sided p = 1/16."""
    survey = defined(pairs=5)
    votes = [
        ballot(survey, rater, place, "b", left="b" if place % 2 else "a")
        for rater in RATERS
        for place in range(5)
    ]

    assert stopped(survey, votes).decision == "no preference found"


def test_a_survey_of_checks_alone_finds_nothing() -> None:
    survey = defined(pairs=0, checks=2)

    found = stopped(survey, [ballot(survey, "ann", place, "a") for place in range(2)])

    assert (found.decision, found.looks) == ("more votes", ())
