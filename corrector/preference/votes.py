"""Raters, views and votes, and why a vote is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corrector.preference.survey import Arm, Choice

MAX_BROWSERS = 100
"""Browsers of one link that are counted."""
MAX_VOTES_PER_VIEW = 20
"""A view's answer may be changed so often: the database grows no faster than pairs are shown."""


class VoteRefused(Exception):
    """A vote that cannot be stored, however often it is sent."""


class SurveyClosed(VoteRefused):
    """The survey takes no more votes."""


class UnknownView(VoteRefused):
    """The rater was never shown such a view."""


class ConflictingVote(VoteRefused):
    """Another vote has this id."""


class TooManyVotes(VoteRefused):
    """The view was answered MAX_VOTES_PER_VIEW times."""


@dataclass(frozen=True)
class Rater:
    """A rater; `name` and `link` are None once the rater is forgotten."""

    pseudonym: str
    name: str | None
    link: str | None


@dataclass(frozen=True)
class View:
    """A showing of a pair that a rater has seen.

    Attributes:
        id: Random, for votes.
        number: Position in the rater's sequence, from 0.
        shown: Seconds since 1970, of the first time.
    """

    id: str
    number: int
    pair: str
    left: Arm
    repeat: bool
    shown: float


@dataclass(frozen=True)
class StoredVote:
    """A vote with its view: one line of an export.

    Attributes:
        id: The client's.
        given: Seconds since 1970, when it arrived.
    """

    rater: str
    view: View
    id: str
    answers: Mapping[str, Choice]
    seconds: float
    given: float


@dataclass(frozen=True)
class RaterProgress:
    """How far a rater is; `browsers` is the number of browsers in which the link was opened."""

    rater: Rater
    answered: int
    browsers: int
    last: float | None


def chosen_arm(answer: str, left: Arm) -> Choice:
    """The arm of the side "left" or "right"; "both bad" stays.

    Raises:
        ValueError: Any other answer.
    """
    other: Arm = "b" if left == "a" else "a"
    choices: dict[str, Choice] = {"left": left, "right": other, "both bad": "both bad"}
    try:
        return choices[answer]
    except KeyError:
        raise ValueError(f"{answer!r}: expected left, right or both bad") from None


def chosen_side(choice: Choice, left: Arm) -> str:
    """The inverse of `chosen_arm`."""
    return choice if choice == "both bad" else "left" if choice == left else "right"
