"""A browser on the page: Debian's chromium, driven as a person would use it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 20_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that reaches this machine only."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-background-networking", "--no-first-run"],
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A visitor's tab.

    Attributes:
        requests: every URL that the page asked for.
        troubles: errors in the browser's console.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def box(self, name: str = "chat") -> Any:
        return self.page.locator(f"#{name}-box textarea")

    def send(self, text: str, name: str = "chat") -> None:
        self.box(name).fill(text)
        self.box(name).press("Enter")

    def answers(self, name: str = "chat") -> Any:
        return self.page.locator(f"#{name}-chat [data-testid=bot]:not(:has(.figures))")

    def figures(self, name: str = "chat") -> Any:
        return self.page.locator(f"#{name}-chat .figures")

    def complete(self, count: int, name: str = "chat") -> None:
        """Waits until so many answers are complete."""
        expect(self.figures(name)).to_have_count(count)

    def button(self, label: str) -> Any:
        """A button with words on it, not one of the icons at a message."""
        exactly = re.compile(f"^\\s*{re.escape(label)}\\s*$")
        named = self.page.locator("button:not(.icon-button)", has_text=exactly)
        return named.locator("visible=true")

    def shot(self, name: str) -> None:
        """Keeps a picture of the page, where a folder for them is named."""
        folder = os.environ.get("FASTCHAT_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Opens the page as a new visitor and waits until it can be used."""
    fields = {"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options}
    context = browser.new_context(**fields)
    context.set_default_timeout(PATIENCE_MS)
    found = Visit(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("pageerror", lambda error: found.troubles.append(str(error)))
    try:
        arrive(found, url)
        yield found
    finally:
        context.close()


def arrive(found: Visit, url: str) -> None:
    """Opens an address and waits until the models are there."""
    found.page.goto(url)
    expect(found.page.locator("#model input")).not_to_have_value("")
