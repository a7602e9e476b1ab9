"""Small surveys of drawn pictures, and raters who vote on them over HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from corrector.preference.links import Links
from corrector.preference.making import ImagePair, SurveyPlan, make_survey
from corrector.preference.store import VoteStore
from corrector.preference.survey import QUESTIONS, Survey, SurveyPair
from serving.survey.app import build_app
from tests.support.app_server import serving
from tests.support.pictures import drawn

PROMPT = "a person lying on the grass"
LEFT = dict.fromkeys(QUESTIONS, "left")


def image_pairs(folder: Path, count: int, prompt: str = PROMPT) -> list[ImagePair]:
    """Files of drawn pictures: those of arm "a" are darker, and their metadata name their model."""
    from PIL.PngImagePlugin import PngInfo

    folder.mkdir()
    pairs = []
    for seed in range(count):
        files = folder / f"{seed}-base.png", folder / f"{seed}-corrected.png"
        for file in files:
            named = PngInfo()
            named.add_text("model", file.stem)
            picture = drawn(512, 512, number=seed)
            shade = picture.point(lambda value: value // 2) if "base" in file.name else picture
            shade.save(file, pnginfo=named)
        pairs.append(ImagePair(prompt, seed, *files))
    return pairs


def small_survey(
    folder: Path,
    *,
    pairs: int = 4,
    checks: int = 1,
    repeats: float = 0.25,
    title: str = "Which picture is better?",
    prompt: str = PROMPT,
) -> Survey:
    """Make a survey in the folder `survey` of `folder`."""
    found = image_pairs(folder / "images", pairs, prompt)
    arms: Any = {"a": "base", "b": "corrected"}
    plan = SurveyPlan("small", title, arms, seed=0, pairs=pairs, checks=checks, repeats=repeats)
    return make_survey(found, folder / "survey", plan)


@dataclass(frozen=True)
class ServedSurvey:
    """A survey whose page is at `address`."""

    folder: Path
    survey: Survey
    store: VoteStore
    address: str

    def rater(self, name: str = "one") -> HttpRater:
        """A rater with a link."""
        link = self.store.add_rater(name).link
        assert link is not None
        return HttpRater(f"{self.address}/{Links(self.folder, self.survey.id).token(link)}")

    def pseudonym(self, name: str = "one") -> str:
        return next(each.rater.pseudonym for each in self.store.progress() if each.rater.name == name)


@contextmanager
def served_survey(folder: Path, **options: Any) -> Iterator[ServedSurvey]:
    """A small survey, served by uvicorn on loopback; its store waits 0.2 s for a locked database."""
    survey = small_survey(folder, **options)
    store = VoteStore(folder / "survey", survey, busy_seconds=0.2)
    try:
        with serving(build_app(folder / "survey", store)) as address:
            yield ServedSurvey(folder / "survey", survey, store, address)
    finally:
        store.dispose()


@dataclass
class HttpRater:
    """A rater who speaks HTTP as the page does.

    Attributes:
        url: The link.
    """

    url: str
    browser: str = field(default_factory=lambda: secrets.token_hex(8))
    # Without TLS there is nothing to verify, and certificates take long to read.
    _client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=30, verify=False))

    def get(self, path: str = "/") -> httpx2.Response:
        return self._client.get(self.url + path)

    def post(self, path: str, body: Any) -> httpx2.Response:
        return self._client.post(f"{self.url}/{path}", json=body)

    def view(self, number: int | None = None) -> dict[str, Any]:
        """The state that the page is given."""
        answer = self.post("view", {"browser": self.browser} | ({} if number is None else {"number": number}))
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    def ballot(self, view: str, answers: Mapping[str, str] = LEFT, seconds: float = 0.0) -> dict[str, Any]:
        """The body of a vote, with a new id."""
        given = {"view": view, "answers": dict(answers), "seconds": seconds}
        return {"browser": self.browser, "id": secrets.token_hex(16), **given}

    def vote(self, view: str, answers: Mapping[str, str] = LEFT, seconds: float = 0.0) -> httpx2.Response:
        return self.post("votes", self.ballot(view, answers, seconds))


def defined(*, pairs: int, checks: int = 0, repeats: float = 0.0) -> Survey:
    """A survey's definition without images."""
    numbered = [
        SurveyPair(
            id=f"{number:016x}",
            prompt=PROMPT,
            a=f"a{number:015x}",
            b=f"b{number:015x}",
            expected="a" if number >= pairs else None,
        )
        for number in range(pairs + checks)
    ]
    return Survey(
        id="defined",
        title="Which picture is better?",
        arms={"a": "base", "b": "corrected"},
        pairs=tuple(numbered),
        repeats=repeats,
        seed=0,
        created=datetime(2026, 11, 1, tzinfo=UTC),
    )
