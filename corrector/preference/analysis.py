"""The analysis of a survey: who was kept, what each question found, and whether the survey may end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corrector.evaluation.scorecard_figures import Interval
from corrector.evaluation.verdicts import right_share
from corrector.preference.ballot_table import BallotTable
from corrector.preference.power import Power, survey_power
from corrector.preference.raters import ScreenedRater
from corrector.preference.sign_flips import sign_flip_p
from corrector.preference.stopping import Stopping, stopping
from corrector.preference.survey import Arm, Ballot, Choice, Survey, SurveyModel

_CHOICES: tuple[Choice, ...] = ("a", "both bad", "b")


class PairVotes(SurveyModel):
    """The votes that count on one pair, for one question."""

    pair: str
    a: int
    b: int
    both_bad: int
    verdict: Choice | None
    """The answer with the most votes; None where two share the lead."""

    @property
    def score(self) -> float:
        """Mean of the votes, 1 for arm "b", -1 for "a", 0 for both bad."""
        return (self.b - self.a) / (self.a + self.b + self.both_bad)


class QuestionAnalysis(SurveyModel):
    """What one question found. The pair is the unit: a pair's score is the mean of its votes."""

    question: str
    pairs: tuple[PairVotes, ...]
    """Pairs with votes that count."""
    mean_score: float | None
    """Mean over pairs; positive: arm "b" is preferred. None without votes."""
    p: float
    """Two-sided p of the sign flips over pairs; it holds where the survey's end was fixed beforehand, not for an early end."""
    decided: int
    """Pairs whose score is not 0."""
    win_rate: Interval | None
    """Share of the decided pairs whose score prefers arm "b"."""
    both_bad: float | None
    """Mean over pairs of the share of votes that say both are bad."""
    left_share: float | None
    """Share of the votes for a side that chose the left one, 0.5 without an order effect."""
    alpha: float | None
    """Krippendorff's alpha over the three answers; None where no pair has two votes or all votes are alike."""
    power: Power


class Analysis(SurveyModel):
    """A survey's analysis."""

    survey: str
    arms: dict[Arm, str]
    ballots: int
    raters: tuple[ScreenedRater, ...]
    questions: tuple[QuestionAnalysis, ...]
    stopping: Stopping
    """Of the main question."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Raters whose votes count."""
        return tuple(rater.rater for rater in self.raters if not rater.excluded)


def analyse(
    survey: Survey, ballots: Sequence[Ballot], *, smallest_effect: float = 0.2, power: float = 0.8
) -> Analysis:
    """The analysis of all ballots so far.

    Args:
        smallest_effect: Smallest mean score worth finding: 0.2 is 60 % of votes against 40 %.
        power: Chance with which the number of pairs that is still missing would find it.

    Raises:
        UserError: A ballot is about a pair that the survey does not have.
    """
    table = BallotTable(survey, ballots)
    return Analysis(
        survey=survey.id,
        arms=survey.arms,
        ballots=len(table),
        raters=table.screened_raters(),
        questions=tuple(_question(table, question, smallest_effect, power) for question in survey.questions),
        stopping=stopping(table),
    )


def win_rate(scores: Sequence[float]) -> Interval | None:
    """Share of the scores other than 0 that are positive, with Wilson's interval over pairs; None where all are 0.

    Pairs do not depend on each other, whatever the votes on one pair do, so the interval holds where one over votes does not.
    A bootstrap over pairs covers less (`python -m tests.evaluation.measure_survey`).
    """
    decided = [score > 0 for score in scores if score != 0]
    return right_share(decided).model_copy(update={"method": "Wilson's over pairs"}) if decided else None


def _question(table: BallotTable, question: str, smallest_effect: float, power: float) -> QuestionAnalysis:
    survey, scores = table.survey, table.scores[question]
    used = table.kept_ballots() & ~np.isnan(scores)
    counts = {
        choice: np.bincount(table.pair[used & (scores == value)], minlength=len(survey.pairs)).tolist()
        for value, choice in enumerate(_CHOICES, -1)
    }
    pairs = tuple(
        _pair_votes(pair.id, *votes)
        for pair, *votes in zip(survey.pairs, *counts.values(), strict=True)
        if sum(votes)
    )
    means = np.array([pair.score for pair in pairs])
    sided = used & (scores != 0)
    return QuestionAnalysis(
        question=question,
        pairs=pairs,
        mean_score=float(means.mean()) if pairs else None,
        p=sign_flip_p(means, survey.seed),
        decided=int(np.count_nonzero(means)),
        win_rate=win_rate(means.tolist()),
        both_bad=float(np.mean([each.both_bad / (each.a + each.b + each.both_bad) for each in pairs]))
        if pairs
        else None,
        left_share=float(np.mean(scores[sided] == table.side[sided])) if sided.any() else None,
        alpha=_alpha(table, scores, used),
        power=survey_power(means, level=survey.stopping.level, power=power, smallest_effect=smallest_effect),
    )


def _pair_votes(pair: str, a: int, both_bad: int, b: int) -> PairVotes:
    votes: dict[Choice, int] = {"a": a, "both bad": both_bad, "b": b}
    leading = [choice for choice, count in votes.items() if count == max(votes.values())]
    return PairVotes(
        pair=pair, a=a, b=b, both_bad=both_bad, verdict=leading[0] if len(leading) == 1 else None
    )


def _alpha(table: BallotTable, scores: np.ndarray, used: np.ndarray) -> float | None:
    """Krippendorff's alpha (2011, Computing Krippendorff's alpha-reliability), nominal, of the ballots in `used` `[n]`."""
    votes = np.bincount(table.pair[used], minlength=len(table.survey.pairs))
    several = used & (votes[table.pair] > 1)
    if len(np.unique(scores[several])) < 2:
        return None
    from crowdkit.metrics.data import alpha_krippendorff  # these imports take seconds
    from pandas import DataFrame

    answers = {"task": table.pair[several], "worker": table.rater[several], "label": scores[several]}
    return alpha_krippendorff(DataFrame(answers))
