"""Ballots, and a judge's verdicts, for tests of their analysis."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np

from corrector.preference.judge_verdicts import JudgedPair, JudgeVerdicts, Orders, analysed
from corrector.preference.store import VoteStore
from corrector.preference.survey import QUESTIONS, Arm, Ballot, Choice, Survey
from corrector.preference.votes import StoredVote, View

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


def votes(
    survey: Survey, answers: Sequence[Choice], raters: Sequence[str] = ("ann", "bob", "eve")
) -> list[Ballot]:
    """Every rater gives the same answer on each pair, with sides in turn."""
    sides: tuple[Arm, Arm] = ("a", "b")
    return [
        ballot(survey, rater, place, answer, left=sides[(place + turn) % 2])
        for turn, rater in enumerate(raters)
        for place, answer in enumerate(answers)
    ]


def store_ballots(folder: Path, survey: Survey, ballots: Sequence[Ballot]) -> None:
    """Store them in the database of the survey's folder."""
    store = VoteStore(folder, survey)
    store.add_votes(_stored(number, each) for number, each in enumerate(ballots))
    store.dispose()


def said(
    survey: Survey, orders: Sequence[Orders], right: Sequence[tuple[bool, bool]] | None = None
) -> JudgeVerdicts:
    """A judge's verdicts on the first pairs, the same on all questions."""
    pairs = tuple(
        JudgedPair(
            pair=survey.pairs[place].id,
            orders=dict.fromkeys(QUESTIONS, each),
            notes=("", ""),
            right=right[place] if right else None,
        )
        for place, each in enumerate(orders)
    )
    return JudgeVerdicts(
        survey=survey.id,
        judge="vision-language-pairs eyes 01234567",
        image_judge="vision-language eyes 89abcdef" if right else None,
        asked=datetime(2026, 11, 1, tzinfo=UTC),
        pairs=pairs,
        questions=tuple(analysed(pairs, question, survey.seed) for question in survey.questions),
        stopped=None,
    )


def _stored(number: int, each: Ballot) -> StoredVote:
    view = View(f"{number:016x}", number, each.pair, each.left, each.repeat, each.given)
    return StoredVote(each.rater, view, f"{number:032x}", each.answers, each.seconds, each.given)
