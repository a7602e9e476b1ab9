"""The page in headless Chromium: base and correction side by side, the route, verdicts, mistakes; nothing from elsewhere."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from corrector.feedback import read_verdicts
from serving.ingress.app import create_app
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.browser import opened
from tests.support.ingress import GUARD, LYING, World
from tests.unit.serving.ingress.test_access import add

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def ask_for(page: Page, prompt: str, **fields: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for label, value in {"Steps": "8", **fields}.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Draw").click()


def test_base_and_correction_stand_side_by_side(
    chromium: Path, address: str, world: World, tmp_path: Path
) -> None:
    with opened(chromium, address) as page:
        expect(page.get_by_text("Base: embedded")).to_be_visible()
        page.get_by_role("button", name=LYING).click()
        ask_for(page, LYING, Seed="7")
        base, corrected = page.locator("#base-panel"), page.locator("#corrected-panel")
        expect(base.get_by_text("drawn in")).to_be_visible()
        expect(corrected.get_by_text("drawn in")).to_be_visible()
        expect(corrected).to_contain_text("lying, version 1")
        expect(page.locator("#route")).to_contain_text("exact → lying@1")
        expect(page.locator("#route")).to_contain_text("It is the prompt that lying corrects")
        expect(page.get_by_role("status")).to_have_text("Seed 7")
        drawn = [panel.locator("img").get_attribute("src") for panel in (base, corrected)]
        assert drawn[0] != drawn[1]
        page.get_by_label("Note").fill("three legs")
        page.get_by_role("button", name="Bad").click()
        expect(page.get_by_role("status")).to_contain_text("stored")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
    verdict = read_verdicts(world.verdicts)[-1]
    assert (verdict["verdict"], verdict["note"], verdict["request"]["seeds"]) == ("bad", "three legs", [7])


def test_a_prompt_without_a_correction_is_drawn_once_and_the_page_says_why(
    chromium: Path, address: str
) -> None:
    with opened(chromium, address) as page:
        ask_for(page, GUARD)
        expect(page.locator("#base-panel").get_by_text("drawn in")).to_be_visible()
        expect(page.locator("#corrected-panel")).to_contain_text("Nothing to correct")
        expect(page.locator("#route")).to_contain_text("guard prompt or hard negative of lying")
        expect(page.get_by_role("button", name="Good")).to_be_hidden()


def test_mistakes_are_said_and_the_next_drawing_works(chromium: Path, address: str) -> None:
    with opened(chromium, address) as page:
        ask_for(page, LYING, Steps="999")
        expect(page.get_by_role("alert")).to_contain_text("num_inference_steps: at most 100")
        ask_for(page, LYING)
        expect(page.locator("#corrected-panel").get_by_text("drawn in")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_hidden()
        ask_for(page, LYING, Steps="100")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status")).to_have_text("Stopped.")


def test_a_prompt_is_text_and_never_markup(chromium: Path, address: str) -> None:
    with opened(chromium, address) as page:
        ask_for(page, "<img src=x onerror=\"document.title='broken'\">")
        expect(page.locator("#base-panel").get_by_text("drawn in")).to_be_visible()
        assert page.title().startswith("Playground")


def test_a_key_is_asked_for_where_there_are_keys(
    chromium: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = add(tmp_path / "keys.json", "team", capsys=capsys)
    aliases = {"gpt-image-1": "auto", "better": "lying"}
    settings = IngressSettings(keys=tmp_path / "keys.json", model_aliases=aliases)
    with (
        serving(create_app(world.service, settings)) as address,
        opened(chromium, address) as page,
    ):
        ask_for(page, LYING)
        expect(page.get_by_role("alert")).to_contain_text("no API key")
        page.get_by_label("API key").fill(key)
        page.get_by_label("API key").press("Tab")
        expect(page.locator("#base")).to_have_text("Base: embedded")
        expect(page.get_by_role("option", name="better")).to_have_count(0)
        page.get_by_role("button", name="Draw").click()
        expect(page.locator("#corrected-panel").get_by_text("drawn in")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(chromium: Path, address: str, scheme: str, tmp_path: Path) -> None:
    phone = {"width": 390, "height": 800}
    with opened(chromium, address, viewport=phone, color_scheme=scheme) as page:
        ask_for(page, LYING)
        expect(page.locator("#corrected-panel").get_by_text("drawn in")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= phone["width"]
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.screenshot(path=tmp_path / "phone.png", full_page=True)
    brightness = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness > 384) == (scheme == "light")
