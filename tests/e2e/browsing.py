"""Debian's Chromium on a page of ours, driven by Playwright: what it complains of, where it asks, what axe finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, expect, sync_playwright

AXE = Path(__file__).parent / "viewer" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    *(
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--no-proxy-server",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but loopback resolves
)
# Nothing is slow for five seconds only where nothing else is done.
expect.set_options(timeout=60_000)

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
FINDINGS = "async () => (await axe.run(document, {rules: {'target-size': {enabled: true}}})).violations"
"""All rules of WCAG 2.2 A and AA, and what axe calls good practice; the one is off by default."""


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """Run a browser."""
    with sync_playwright() as playwright:
        browser = _launched(playwright, program)
        try:
            yield browser
        finally:
            browser.close()


def _launched(playwright: Playwright, program: str) -> Browser:
    return playwright.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))


class Tab:
    """A page in a profile of its own.

    Attributes
    ----------
    page : Page
        Playwright's.
    complaints : list of str
        Errors and warnings of the console and of the page, in their order.
    elsewhere : list of str
        Addresses of other origins that were asked for.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self._origin = origin
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("request", self._on_request)

    def open(self, path: str) -> None:
        """Go to a path, and wait until all that it needs is there."""
        answer = self.page.goto(f"{self._origin}{path}", wait_until="load")
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"

    def pictures(self) -> dict[str, int]:
        """Return the width of every picture by its address; 0 of one that is not there."""
        found: dict[str, int] = self.page.evaluate(
            "() => Promise.all([...document.images].map(async one => {"
            " one.loading = 'eager'; await one.decode().catch(() => 0);"
            " return [one.getAttribute('src'), one.naturalWidth] })).then(Object.fromEntries)"
        )
        return found

    def findings(self) -> list[str]:
        """Return what axe finds, of whatever weight, with the elements."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: list[dict[str, Any]] = self.page.evaluate(FINDINGS)
        return [
            f"{one['impact']} {one['id']}: {json.dumps([node['html'][:200] for node in one['nodes']])}" for one in found
        ]

    def wider_than_the_screen(self) -> bool:
        """Whether it has to be moved sideways to be read."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"() => {root}.scrollWidth > {root}.clientWidth"))

    def focused(self) -> str:
        """Return the words of the link, button or other element that a key would go to."""
        return str(self.page.evaluate("() => document.activeElement?.textContent.trim() ?? ''"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._origin}/", "data:", "blob:")):
            self.elsewhere.append(request.url)


@contextmanager
def tab(browser: Browser, origin: str, *, tidy: bool = True, **how: Any) -> Iterator[Tab]:
    """Open a tab; in the end insist that nothing complained and nothing outside was asked for, unless not ``tidy``."""
    context = browser.new_context(**{"viewport": DESKTOP, **how})
    context.set_default_timeout(60_000)
    try:
        opened = Tab(context.new_page(), origin)
        yield opened
        if tidy:
            assert opened.complaints == []
            assert opened.elsewhere == []
    finally:
        context.close()
