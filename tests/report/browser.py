"""A page of a run in the system's Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from playwright.sync_api import Browser, Locator, Page, sync_playwright

#: Milliseconds for a step that takes some of them: a limit for a page that hangs.
PATIENCE = 60_000


def program() -> str | None:
    """Where Chromium is; None where it isn't."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def chromium() -> Generator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program())
        try:
            yield browser
        finally:
            browser.close()


@attrs.define
class Shown:
    """A page that is shown.

    Attributes:
        page: Playwright's.
        requests: the addresses of everything that was requested.
        complaints: lines of the console, and errors of scripts.
    """

    page: Page
    requests: list[str] = attrs.field(factory=list[str])
    complaints: list[str] = attrs.field(factory=list[str])

    def rows(self, column: int = 0) -> list[str]:
        """The texts of a column of the table's body: of the names, without the ids."""
        selector = f"#table tbody tr > :nth-child({column + 1})"
        if column == 0:
            selector += " bdi"
        return self.page.locator(selector).all_text_contents()

    def heading(self, name: str) -> Locator:
        """The button that sorts by a column."""
        return self.page.locator(f"#table [data-by={name}]")

    def text(self, selector: str) -> str:
        """The text of an element."""
        return self.page.locator(selector).text_content() or ""

    @property
    def width(self) -> int:
        """How wide the document is, which is more than the window where it scrolls sideways."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth")
        return found


class Tabs:
    """Tabs of a browser, one for each kind of window: to make one takes longer than to load a page.

    Args:
        browser: has them until its end.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._tabs: dict[tuple[Any, ...], Shown] = {}

    @contextmanager
    def showing(
        self, path: Path, *, width: int = 1200, dark: bool = False, **options: Any
    ) -> Iterator[Shown]:
        """Load a page's file, and wait until it is drawn, unless scripts are off."""
        key = (width, dark, *options.items())
        if key not in self._tabs:
            self._tabs[key] = self._new(width, dark, options)
        shown = self._tabs[key]
        shown.page.mouse.move(0, 0)
        shown.page.goto("about:blank")
        shown.requests.clear()
        shown.complaints.clear()
        shown.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            shown.page.wait_for_selector("html[data-drawn]")
        yield shown

    def _new(self, width: int, dark: bool, options: dict[str, Any]) -> Shown:
        context = self._browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            **options,
        )
        context.set_default_timeout(PATIENCE)
        shown = Shown(context.new_page())
        shown.page.on("request", lambda request: shown.requests.append(request.url))
        shown.page.on("console", lambda message: shown.complaints.append(message.text))
        shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
        return shown
