"""BallotTable: a survey's ballots as arrays, and which of them count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from corrector.errors import UserError
from corrector.preference.raters import Counts, Flags, RaterFigures, ScreenedRater
from corrector.preference.sign_flips import Numbers
from corrector.preference.survey import Ballot, Choice, Survey

SCORES: Mapping[Choice, int] = {"a": -1, "both bad": 0, "b": 1}


class BallotTable:
    """A survey's ballots as arrays, one entry a ballot, in the order in which they were given.

    Of several ballots of a rater on one pair the last counts; a repeat is kept beside the first answer.

    Attributes:
        raters: Names; `rater` `[n]` indexes them.
        pair: `[n]`, indexes `survey.pairs`.
        scores: By question `[n]`: 1 for arm "b", -1 for "a", 0 for both bad, NaN without an answer.
        side: `[n]`, the score of the arm on the left.
        counts: `[n]`, whether the ballot may count: neither a check nor a repeat.
    """

    def __init__(self, survey: Survey, ballots: Sequence[Ballot]) -> None:
        """Raises UserError for a ballot on a pair that the survey does not have."""
        pairs = {pair.id: place for place, pair in enumerate(survey.pairs)}
        if unknown := {ballot.pair for ballot in ballots} - pairs.keys():
            raise UserError(
                f'survey {survey.id}: a ballot is about the pair "{min(unknown)}", which the survey does not have; '
                "were votes of another survey imported?"
            )
        given = sorted(ballots, key=lambda each: (each.given, each.rater, each.pair))
        last = {(each.rater, each.pair, each.repeat): each for each in given}
        chosen = [each for each in given if last[each.rater, each.pair, each.repeat] is each]
        self.survey = survey
        self.raters = tuple(sorted({each.rater for each in chosen}))
        places = {rater: place for place, rater in enumerate(self.raters)}
        self.rater: Counts = np.array([places[each.rater] for each in chosen], dtype=np.int64)
        self.pair: Counts = np.array([pairs[each.pair] for each in chosen], dtype=np.int64)
        self.scores: dict[str, Numbers] = {
            question: np.array(
                [SCORES[each.answers[question]] if question in each.answers else np.nan for each in chosen]
            )
            for question in survey.questions
        }
        expected = np.array([0 if pair.expected is None else SCORES[pair.expected] for pair in survey.pairs])
        repeat = np.array([each.repeat for each in chosen], dtype=bool)
        main = self.scores[survey.main_question]
        self.side: Counts = np.array([SCORES[each.left] for each in chosen], dtype=np.int64)
        self.decided: Flags = np.isin(main, (-1, 1))
        self.left: Flags = self.decided & (main == self.side)
        self._seconds = np.array([each.seconds for each in chosen])
        self._check: Flags = (expected != 0)[self.pair]
        self._failed: Flags = self._check & (main != expected[self.pair])
        self.counts: Flags = ~repeat & ~self._check
        self._repeated, self._agreed = self._repeats(repeat & ~self._check)

    def __len__(self) -> int:
        return len(self.rater)

    def _repeats(self, repeat: Flags) -> tuple[Flags, Flags]:
        """At the later ballot of a first answer and its repeat: that there are both, and whether they agree."""
        first = {
            (self.rater[place], self.pair[place]): place for place in np.flatnonzero(self.counts).tolist()
        }
        repeated, agreed = np.zeros(len(self), dtype=bool), np.zeros(len(self), dtype=bool)
        main = self.scores[self.survey.main_question]
        for place in np.flatnonzero(repeat).tolist():
            before = first.get((self.rater[place], self.pair[place]))
            if before is not None:
                later = max(place, before)
                repeated[later] = True
                agreed[later] = main[place] == main[before]
        return repeated, agreed

    def figures(self, until: int | None = None) -> RaterFigures:
        """What the first `until` ballots (None: all) say of each rater."""
        from scipy.ndimage import median
        from scipy.special import bdtr

        rater = self.rater[:until]

        def count(which: Flags | None = None) -> Counts:
            chosen = rater if which is None else rater[which[:until]]
            return np.bincount(chosen, minlength=len(self.raters))

        views, decided, left = count(), count(self.decided), count(self.left)
        seconds = np.full(len(self.raters), np.inf)
        if seen := np.flatnonzero(views).tolist():
            seconds[seen] = median(self._seconds[:until], rater, seen)
        return RaterFigures(
            views=views,
            seconds=seconds,
            checks=count(self._check),
            failed=count(self._failed),
            decided=decided,
            left=left,
            side_p=np.minimum(1, 2 * bdtr(np.minimum(left, decided - left), decided, 0.5)),
            repeats=count(self._repeated),
            agreed=count(self._agreed),
        )

    def kept_ballots(self, until: int | None = None) -> Flags:
        """Which of the first `until` ballots count: `[until]`, by what those ballots say of the raters."""
        broken = self.figures(until).broken(self.survey.rules)
        kept = ~np.any(list(broken.values()), axis=0)
        return self.counts[:until] & kept[self.rater[:until]]

    def pair_scores(self, question: str, until: int | None = None) -> tuple[Numbers, Numbers]:
        """Mean score, and number, of the votes that count on each of the survey's pairs `[pairs]`; 0 where there are none."""
        scores = self.scores[question][:until]
        used = self.kept_ballots(until) & ~np.isnan(scores)
        places, size = self.pair[:until][used], len(self.survey.pairs)
        votes = np.bincount(places, minlength=size).astype(float)
        return np.bincount(places, scores[used], minlength=size) / np.maximum(votes, 1), votes

    def screened_raters(self) -> tuple[ScreenedRater, ...]:
        """Each rater, with the reasons for an exclusion."""
        found, rules = self.figures(), self.survey.rules
        broken = found.broken(rules)
        return tuple(
            ScreenedRater(
                rater=name,
                views=int(found.views[place]),
                median_seconds=float(found.seconds[place]),
                checks=int(found.checks[place]),
                failed_checks=int(found.failed[place]),
                decided=int(found.decided[place]),
                left=int(found.left[place]),
                side_p=float(found.side_p[place]),
                repeats=int(found.repeats[place]),
                agreed_repeats=int(found.agreed[place]),
                excluded=tuple(
                    found.reason(rule, place, rules) for rule, where in broken.items() if where[place]
                ),
            )
            for place, name in enumerate(self.raters)
        )
