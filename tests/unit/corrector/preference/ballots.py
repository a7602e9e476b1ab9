"""Ballots for tests of the analysis."""

from collections.abc import Sequence
from itertools import count

import numpy as np

from corrector.preference.survey import QUESTIONS, Arm, Ballot, Choice, Survey

_CLOCK = count(1.0)


def ballot(
    survey: Survey,
    rater: str,
    place: int,
    answer: Choice,
    *,
    left: Arm = "a",
    seconds: float = 5.0,
    repeat: bool = False,
) -> Ballot:
    """The same answer to every question about the pair at `place`, later than all ballots before."""
    answers = dict.fromkeys(QUESTIONS, answer)
    return Ballot(rater, survey.pairs[place].id, left, answers, seconds, next(_CLOCK), repeat)


def coin_votes(
    survey: Survey, raters: Sequence[str], seed: int, share_of_b: float = 0.5, agreement: float = 0.7
) -> list[Ballot]:
    """Every rater on every pair in an order of their own; a pair's raters mostly follow the pair's own preference."""
    random = np.random.default_rng(seed)
    follows_b = random.random(len(survey.pairs)) < share_of_b
    given = []
    for rater in raters:
        for place in random.permutation(len(survey.pairs)).tolist():
            prefers_b = follows_b[place] if random.random() < agreement else random.random() < 0.5
            left: Arm = "a" if random.random() < 0.5 else "b"
            given.append(ballot(survey, rater, place, "b" if prefers_b else "a", left=left))
    return given
