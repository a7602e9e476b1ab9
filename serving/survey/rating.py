"""Rating: what a rater sees next, as the page gets it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastapi import HTTPException

from corrector.preference.showing import Showing, showings
from corrector.preference.store import VoteStore
from corrector.preference.survey import Arm, SurveyPair
from corrector.preference.votes import chosen_side

_MAX_RATERS = 10_000
"""Raters whose sequences are kept in memory."""


class Rating:
    """Leads raters through a survey. Blocks, as VoteStore does."""

    def __init__(self, store: VoteStore) -> None:
        self._store = store
        self._survey = store.survey
        self._pairs = {pair.id: pair for pair in self._survey.pairs}
        self._sequence = lru_cache(_MAX_RATERS)(lambda rater: showings(self._survey, rater))

    def view(self, rater: str, browser: str, number: int | None) -> dict[str, Any]:
        """A view of a pair with its images by side, logged as shown; the state of the survey; the images that come next.

        Args:
            number: Of a view that the rater has seen; None: the first that the rater has not answered.

        Raises:
            HTTPException: 404: the rater has not come so far.
        """
        self._store.note_browser(rater, browser)
        sequence, answered = self._sequence(rater), self._store.answered(rater)
        open_number = next((n for n in range(len(sequence)) if n not in answered), len(sequence))
        if number is None:
            number = open_number
        elif number > open_number:
            raise HTTPException(404, "there is no such view yet")
        state: dict[str, Any] = {
            "closed": self._store.closed() is not None,
            "answered": len(answered),
            "total": len(sequence),
            "view": None,
            "next": [],
        }
        if state["closed"] or number == len(sequence):
            return state
        showing = sequence[number]
        shown = self._store.show(rater, number, showing)
        answers = answered.get(number, {})
        state["view"] = {
            "id": shown.id,
            "number": number,
            "prompt": self._pairs[showing.pair].prompt,
            "answers": {question: chosen_side(choice, shown.left) for question, choice in answers.items()},
            **dict(zip(("left", "right"), self._images(showing), strict=True)),
        }
        if number + 1 < len(sequence):
            state["next"] = self._images(sequence[number + 1])
        return state

    def _images(self, showing: Showing) -> list[str]:
        pair = self._pairs[showing.pair]
        return [_image(pair, arm) for arm in _order(showing.left)]


def _order(left: Arm) -> tuple[Arm, Arm]:
    return ("a", "b") if left == "a" else ("b", "a")


def _image(pair: SurveyPair, arm: Arm) -> str:
    return pair.a if arm == "a" else pair.b
