"""The review page: escaped, self-contained, and worked by keys."""

import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect, sync_playwright

from corrector.exemplars.curation import Curation, Decision, Decisions, ImageVerdict, Reason
from corrector.exemplars.curation.page import write_review_page

DIGESTS = ("a" * 64, "b" * 64, "c" * 64)
BLURRED = Reason("sharpness", "not effective", "its edges have 2% of the set's median strength")


def page(folder: Path, name: str = "x.png") -> Path:
    kept = Decision(decision="keep", by="Ben", why="fine")
    images = tuple(
        ImageVerdict(f"{number}{name}", digest, torch.rand(3, 8, 8), (BLURRED,) if number else (), decision)
        for number, (digest, decision) in enumerate(zip(DIGESTS, (None, None, kept), strict=True))
    )
    return write_review_page(Curation(images, (), (), ()), folder / "page.html", title=f"Exemplars: {name}")


def test_texts_are_escaped_and_nothing_is_asked_of_another_machine(tmp_path: Path) -> None:
    html = page(tmp_path, "<script>alert(1)</script>").read_text()
    assert html.count("<script>") == 1
    assert re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|https?://", html) == []
    assert "2 of 3 images would be used" in html


@pytest.mark.browser
@pytest.mark.slow
def test_keys_keep_and_drop_and_the_file_holds_the_decisions(chromium: Path, tmp_path: Path) -> None:
    path = page(tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        opened = browser.new_page()
        opened.goto(path.as_uri())
        opened.keyboard.press("ArrowRight")
        opened.keyboard.press("d")
        opened.get_by_role("button", name="Save").click()
        expect(opened.get_by_role("status")).to_contain_text("Give your name")
        opened.get_by_label("Your name").fill("Ana")
        opened.get_by_role("button", name="Keep").nth(1).click()
        with opened.expect_download() as download:
            opened.get_by_role("button", name="Save").click()
        download.value.save_as(tmp_path / "decisions.json")
        browser.close()
    assert Decisions.load(tmp_path / "decisions.json").decisions == {
        DIGESTS[0]: Decision(decision="drop", by="Ana"),
        DIGESTS[1]: Decision(decision="keep", by="Ana", why=str(BLURRED)),
        DIGESTS[2]: Decision(decision="keep", by="Ben", why="fine"),
    }
