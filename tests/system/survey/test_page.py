"""The survey's page in headless Chromium: by keys and touch, over a reload and a failing database, and what axe finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from corrector.preference.survey import QUESTIONS
from corrector.preference.vote_tables import FILE_NAME
from tests.support.browser import opened
from tests.support.surveys import ServedSurvey, served_survey

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PROMPT = "<img src=x onerror=\"document.title='broken'\"> lying on the grass"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedSurvey]:
    with served_survey(tmp_path, pairs=3, checks=1, repeats=0.34, prompt=PROMPT) as served:
        yield served


def faults(page: Page) -> list[str]:
    """What axe finds that is serious or critical."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes']}" for each in found if each["impact"] in ("serious", "critical")]


def at(page: Page, pair: int, question: int) -> None:
    """Wait until the page asks this question about this pair, and takes answers."""
    expect(page.locator("#place")).to_have_text(f"Pair {pair} of 5")
    expect(page.locator("#step")).to_have_text(f"Question {question} of 3")
    expect(page.locator("#pair")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("button", name="Both bad")).to_have_attribute("aria-disabled", "false")
    page.wait_for_timeout(250)  # a second answer within 200 ms counts as a double click


def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled to, and both pictures are large enough to judge."""
    root = "document.documentElement"
    beyond = page.evaluate(f"[{root}.scrollWidth - innerWidth, {root}.scrollHeight - innerHeight]")
    box = page.locator("#left").bounding_box()
    assert box is not None
    return max(beyond) <= 0 and min(box["width"], box["height"]) >= 200


def sides(served: ServedSurvey) -> list[list[str]]:
    """Of every ballot, the sides that were answered."""
    return [
        [
            "both bad" if choice == "both bad" else "left" if choice == ballot.left else "right"
            for choice in (ballot.answers[question] for question in QUESTIONS)
        ]
        for ballot in served.store.ballots()
    ]


def test_a_survey_is_answered_by_keys_and_resumed_after_a_reload(
    chromium: Path, served: ServedSurvey
) -> None:
    with opened(chromium, served.rater().url, **DESKTOP) as page:
        assert faults(page) == []
        page.get_by_role("button", name="Start").press("Enter")
        for question, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowDown"), start=1):
            at(page, 1, question)
            assert fits(page)
            page.keyboard.press(key)
        at(page, 2, 1)
        assert faults(page) == []
        expect(page.locator("#prompt")).to_have_text(PROMPT)
        page.keyboard.press("ArrowRight")
        at(page, 2, 2)
        shown = page.locator("#left").get_attribute("src")
        page.reload()
        at(page, 2, 2)
        assert page.locator("#left").get_attribute("src") == shown
        page.keyboard.press("Backspace")
        at(page, 2, 1)
        expect(page.get_by_role("button", name="Right")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Backspace")
        at(page, 1, 1)
        expect(page.get_by_role("button", name="Left")).to_have_attribute("aria-pressed", "true")
        for question in (1, 2, 3):
            at(page, 1, question)
            page.keyboard.press("ArrowRight")
        for pair in range(2, 6):
            for question in (1, 2, 3):
                at(page, pair, question)
                page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
        assert faults(page) == []
        assert page.title() == "Which picture is better?"
    assert sides(served) == [["right"] * 3, *[["left"] * 3] * 4]
    assert len(served.store.votes()) == 6
    assert all(0 < vote.seconds <= vote.given - vote.view.shown for vote in served.store.votes())
    (progress,) = served.store.progress()
    assert (progress.answered, progress.browsers) == (5, 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_survey_is_answered_by_touch(chromium: Path, served: ServedSurvey, scheme: str) -> None:
    with opened(chromium, served.rater().url, **PHONE, color_scheme=scheme) as page:
        page.get_by_role("button", name="Start").tap()
        for pair in range(1, 6):
            for question, name in enumerate(("Upper", "Lower", "Both bad"), start=1):
                at(page, pair, question)
                assert fits(page)
                button = page.get_by_role("button", name=name)
                box = button.bounding_box()
                assert box is not None and box["height"] >= 44 and box["y"] > 844 / 2
                if pair == 1:
                    assert faults(page) == []
                button.tap()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert sides(served) == [["left", "right", "both bad"]] * 5


def test_a_vote_is_kept_until_it_is_stored(chromium: Path, served: ServedSurvey) -> None:
    file = served.folder / FILE_NAME
    with opened(chromium, served.rater().url, **DESKTOP) as page:
        page.get_by_role("button", name="Start").click()
        at(page, 1, 1)
        moved = file.rename(file.with_name("moved"))
        for question in (1, 2, 3):
            at(page, 1, question)
            page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("alert")).to_contain_text(
            "Not stored yet: your answer is kept on this device"
        )
        assert faults(page) == []
        page.reload()
        expect(page.get_by_text("Not stored yet").last).to_be_visible()
        moved.rename(file)
        at(page, 2, 1)
        expect(page.get_by_role("alert")).to_be_hidden()
    assert sides(served) == [["left"] * 3]


def test_a_survey_that_closes_meanwhile_says_so(chromium: Path, served: ServedSurvey) -> None:
    with opened(chromium, served.rater().url, **DESKTOP) as page:
        page.get_by_role("button", name="Start").click()
        for question in (1, 2, 3):
            at(page, 1, question)
            if question == 3:
                served.store.close()
            page.keyboard.press("ArrowDown")
        expect(page.get_by_role("heading", name="This survey is closed")).to_be_visible()
        expect(page.get_by_text("does not count")).to_be_visible()
        page.reload()
        expect(page.get_by_text("This survey is closed")).to_be_visible()
        assert faults(page) == []
    assert served.store.votes() == []
