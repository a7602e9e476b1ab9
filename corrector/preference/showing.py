"""showings: the order in which a rater sees a survey's pairs, which image is on the left, and which pairs come twice."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from corrector.preference.survey import Arm, Survey

_GAP = 8
"""Pairs between the two showings of a pair, where the survey has as many."""


@dataclass(frozen=True)
class Showing:
    """A pair's place in a rater's sequence; `repeat` and `left` as in Ballot."""

    pair: str
    left: Arm
    repeat: bool


def showings(survey: Survey, rater: str) -> tuple[Showing, ...]:
    """A rater's sequence, drawn from the survey's seed and the rater's pseudonym: the same at every call.

    Every pair comes once, attention checks among the others; each side is drawn by itself. A share `survey.repeats` of the
    pairs that count comes again later, with sides swapped.
    """
    random = Random(f"{survey.seed}/{survey.id}/{rater}")
    pairs = list(survey.pairs)
    random.shuffle(pairs)
    sequence = [Showing(pair.id, random.choice(("a", "b")), repeat=False) for pair in pairs]
    counting = {pair.id for pair in pairs if pair.expected is None}
    first = [showing for showing in sequence if showing.pair in counting]
    count = round(survey.repeats * len(first))
    for showing in random.sample(first[: max(count, len(first) - _GAP)], count):
        earliest = min(sequence.index(showing) + 1 + _GAP, len(sequence))
        other: Arm = "b" if showing.left == "a" else "a"
        sequence.insert(random.randint(earliest, len(sequence)), Showing(showing.pair, other, repeat=True))
    return tuple(sequence)
