"""JudgeVerdicts: what a vision-language judge said of a survey's pairs, as the survey's folder keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from corrector.evaluation.scorecard_figures import Interval
from corrector.preference.agreement import consistent_verdicts, flip_rate
from corrector.preference.analysis import win_rate
from corrector.preference.ballot_table import SCORES
from corrector.preference.sign_flips import sign_flip_p
from corrector.preference.survey import Choice, SurveyModel

JUDGE_FILE = "judge.json"
"""In the survey's folder."""

Orders = tuple[Choice, Choice]
"""The arm preferred with the image of arm "a" first, and with that of "b" first."""


class JudgedPair(SurveyModel):
    """What the judge says of a pair."""

    pair: str
    orders: dict[str, Orders] | None
    """By question; None: there is no verdict in one of the orders."""
    notes: tuple[str, str]
    """The judge's reasons, or why there is no verdict, in both orders."""
    right: tuple[bool, bool] | None = None
    """Whether the judge of single images calls the image of arm "a" right, and that of "b"; None: it was not asked, or has
    no verdict."""


class JudgedQuestion(SurveyModel):
    """What the judge's verdicts say on one question; only those that the order does not change count."""

    question: str
    consistent: int
    """Pairs with a verdict that counts."""
    flip_rate: Interval | None
    """Share of pairs on which the order changes the verdict."""
    win_rate: Interval | None
    """Share of the decided pairs on which arm "b" is preferred, with Wilson's interval over pairs; None: none is decided."""
    decided: int
    """Consistent pairs on which an arm is preferred."""
    p: float
    """Two-sided p of the sign flips over consistent pairs."""


class JudgeVerdicts(SurveyModel):
    """The verdicts of one model, under one instruction, on a survey's pairs."""

    survey: str
    judge: str
    """Name, model and the instruction's digest."""
    image_judge: str | None
    """The same of the judge of single images; None: it was not asked."""
    asked: datetime
    pairs: tuple[JudgedPair, ...]
    questions: tuple[JudgedQuestion, ...]
    stopped: str | None
    """Why some pairs were not asked about."""

    def orders(self, question: str) -> dict[str, Orders]:
        """By pair, of the pairs with a verdict in both orders."""
        return _orders(self.pairs, question)

    def question(self, name: str) -> JudgedQuestion:
        """What the verdicts say on the question of this name."""
        return next(each for each in self.questions if each.question == name)


def analysed(pairs: Sequence[JudgedPair], question: str, seed: int) -> JudgedQuestion:
    """What the verdicts say on `question`; `seed` draws the sign flips."""
    orders = _orders(pairs, question)
    scores = [float(SCORES[choice]) for choice in consistent_verdicts(orders).values()]
    return JudgedQuestion(
        question=question,
        consistent=len(scores),
        flip_rate=flip_rate(orders),
        win_rate=win_rate(scores),
        decided=sum(score != 0 for score in scores),
        p=sign_flip_p(np.array(scores), seed),
    )


def _orders(pairs: Sequence[JudgedPair], question: str) -> dict[str, Orders]:
    return {each.pair: each.orders[question] for each in pairs if each.orders}
