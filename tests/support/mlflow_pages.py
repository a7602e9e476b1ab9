"""MLflow's own pages as a reviewer clicks through them, in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import FrameLocator, Page, expect, sync_playwright

TIMEOUT_MS = 60_000.0
# The pages link to MLflow's documentation and may ask for more; nothing but this machine is to be reached.
LOOPBACK_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@contextmanager
def reviewer(chromium: Path, address: str) -> Iterator[ReviewerPages]:
    """A reviewer who has opened MLflow at `address` for the first time.

    Playwright keeps an event loop running in this thread meanwhile, so that nothing else can run one of its own.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[LOOPBACK_ONLY])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        page.goto(address)
        yield ReviewerPages(page)
        browser.close()


class ReviewerPages:
    """What is on the screen, and where a click leads."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._version = ""

    def open_version(self, name: str, version: str) -> None:
        """From the first page to that of a version."""
        page = self._page
        page.get_by_role("button", name="Model training").click()
        page.get_by_role("link", name="Model registry").click()
        page.get_by_role("button", name="Try it now").click()  # what is new, told once
        page.get_by_role("link", name=name, exact=True).click()
        page.get_by_role("link", name=f"Version {version}", exact=True).click()
        page.get_by_role("heading", name=f"Version {version}").wait_for()
        self._version = page.url

    def description(self) -> str:
        """What the page of a version says of it above its tags."""
        described = self._page.get_by_role("main")
        described.get_by_role("listitem").first.wait_for()
        return described.inner_text()

    def tag(self, name: str) -> str:
        """The value of a tag in the table on the page of a version."""
        row = self._page.get_by_role("row").filter(has=self._page.get_by_role("cell", name=name, exact=True))
        return row.get_by_role("cell").nth(1).inner_text()

    def open_review(self, name: str) -> FrameLocator:
        """From the page of a version to the gallery of its run; leaves it there."""
        page = self._page
        page.get_by_role("main").get_by_role("link", name=name, exact=True).last.click()
        page.get_by_role("tab", name="Artifacts").click()
        page.get_by_text("review.html", exact=True).click()
        return page.frame_locator("iframe")

    def add_alias(self, alias: str) -> None:
        """Back on the page of the version, by the dialog of its aliases."""
        page = self._page
        page.goto(self._version)
        # The pencil beside the aliases that it has (`candidate`, of what passed the gate), "Add" where it has none.
        aliases = page.get_by_test_id("descriptions-item").filter(has_text="Aliases")
        aliases.get_by_role("button").click()
        dialog = page.get_by_role("dialog")
        typed = dialog.get_by_role("combobox")
        typed.click()
        typed.press_sequentially(alias)
        typed.press("Enter")
        dialog.get_by_role("button", name="Save aliases").click()
        dialog.wait_for(state="detached")  # it shows the alias, too, for as long as it fades
        page.get_by_role("status", name=alias, exact=True).wait_for()
