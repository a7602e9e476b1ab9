"""The stopping rule: whether a survey may end now, at an error rate that holds however often somebody asks.

A group-sequential sign-flip test. It looks when another twentieth of the pairs has become complete, whether or not somebody
asks; asking shows the last look and spends nothing. A flip of pairs changes the whole course of the survey, so the observed
course is compared with the courses of all flips. Each look has a bound for the mean score, such that the share of flips whose
course has crossed a bound so far is at most `level` times the square of the share of complete pairs (error spending: Lan and
DeMets 1983, Biometrika 70; Kim and DeMets 1987, Biometrika 74). Flips keep who voted when and who is excluded. Hence votes may
be added to complete pairs, and raters excluded, between looks.

`python -m tests.evaluation.measure_survey` measures the error rate and the power, also those of an alternative, an
e-process that mixes fixed bets (bets that adapt: Waudby-Smith and Ramdas 2024, JRSS B 86; not measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from corrector.preference.ballot_table import BallotTable
from corrector.preference.sign_flips import Numbers, sign_flips
from corrector.preference.survey import Arm, SurveyModel

_LOOKS = 20


class SurveyLook(SurveyModel):
    """What one look saw."""

    ballots: int
    """Ballots given until then."""
    complete: int
    """Pairs with enough votes of raters who were not excluded then."""
    mean_score: float
    """Mean score of these pairs: 1 if all votes prefer arm "b", -1 if all prefer "a"."""
    bound: float | None
    """The preference is found if the mean score is farther from 0 than this; None: no score would have sufficed so early."""


class Stopping(SurveyModel):
    """Whether the survey may end."""

    decision: Literal["preference", "no preference found", "more votes"]
    preferred: Arm | None
    looks: tuple[SurveyLook, ...]
    pairs: int
    """Pairs that count: all but attention checks."""
    why: str

    @property
    def may_end(self) -> bool:
        return self.decision != "more votes"


def stopping(table: BallotTable) -> Stopping:
    """What the looks so far say about the survey's main question."""
    survey, rule = table.survey, table.survey.stopping
    pairs = sum(pair.expected is None for pair in survey.pairs)
    signs = sign_flips(len(survey.pairs), survey.seed)
    crossed = np.zeros(len(signs), dtype=bool)
    looks: list[SurveyLook] = []
    for until in _positions(table, pairs):
        scores, votes = table.pair_scores(survey.main_question, until)
        complete = votes >= rule.min_votes_per_pair
        count = int(complete.sum())
        if count <= (looks[-1].complete if looks else 0):
            continue
        sums = np.abs(signs @ np.where(complete, scores, 0))
        may_cross = math.floor(rule.level * (count / pairs) ** 2 * len(signs) + 1e-9) - int(crossed.sum())
        bound = _bound(sums[~crossed], may_cross)
        crossed |= sums > bound
        looks.append(
            SurveyLook(
                ballots=until,
                complete=count,
                mean_score=float(scores[complete].mean()),
                bound=bound / count if may_cross else None,
            )
        )
        if crossed[0]:
            preferred: Arm = "b" if looks[-1].mean_score > 0 else "a"
            why = f"{count} of {pairs} pairs complete, mean score {looks[-1].mean_score:+.2f}, bound {bound / count:.2f}"
            return Stopping(
                decision="preference", preferred=preferred, looks=tuple(looks), pairs=pairs, why=why
            )
        if count == pairs:
            why = f"all {pairs} pairs are complete and no look crossed its bound; only more pairs can decide"
            return Stopping(
                decision="no preference found", preferred=None, looks=tuple(looks), pairs=pairs, why=why
            )
    complete_now = looks[-1].complete if looks else 0
    why = f"{complete_now} of {pairs} pairs were complete at the last look, and none crossed its bound"
    return Stopping(decision="more votes", preferred=None, looks=tuple(looks), pairs=pairs, why=why)


def _bound(sums: Numbers, may_cross: int) -> float:
    """The smallest bound above which at most `may_cross` of `sums` lie."""
    if may_cross >= len(sums):
        return 0.0
    place = len(sums) - 1 - may_cross
    return float(np.partition(sums, place)[place]) + 1e-9


def _positions(table: BallotTable, pairs: int) -> Iterator[int]:
    """After how many ballots a look comes: at every twentieth of the pairs that has enough votes by raters excluded or not.

    Afterwards, where exclusions left pairs incomplete, after every twentieth of the votes that the pairs need. The positions
    do not depend on later ballots.
    """
    needed = table.survey.stopping.min_votes_per_pair
    answered = table.counts & ~np.isnan(table.scores[table.survey.main_question])
    goals = {math.ceil(pairs * part / _LOOKS) for part in range(1, _LOOKS + 1)}
    step = math.ceil(pairs * needed / _LOOKS)
    votes, complete, last = [0] * len(table.survey.pairs), 0, 0
    for until, (place, counted) in enumerate(zip(table.pair.tolist(), answered.tolist(), strict=True), 1):
        votes[place] += counted
        completed = counted and votes[place] == needed
        complete += completed
        if (completed and complete in goals) or (complete == pairs and until == last + step):
            last = until
            yield until
