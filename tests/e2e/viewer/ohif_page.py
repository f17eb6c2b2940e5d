"""A study opened in OHIF by headless Chromium, as a reader would: double click, "hydrate", click on a lesion."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, TimeoutError, sync_playwright

FLAGS = (
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but loopback resolves
)
VIEWPORT = {"width": 1400, "height": 840}
SOFT_TISSUE = "1"
"""OHIF's key for its first window preset."""
PATIENCE = 120_000
"""Milliseconds for what software rendering on a busy machine takes."""

MEASUREMENTS = "() => window.services.measurementService.getMeasurements().map(one => one.SOPInstanceUID)"
SEGMENTS = """() => window.services.segmentationService.getSegmentations().flatMap(
    one => Object.values(one.segments).filter(Boolean).map(segment => segment.label))"""


class Viewer:
    """OHIF with one study open.

    Attributes
    ----------
    complaints : list of str
        Errors of the console and of the page, in their order.
    elsewhere : list of str
        Addresses of other origins that were asked for.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self._page = page
        self._address = address
        page.set_default_timeout(PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {str(error)[:300]}"))
        page.on("request", self._on_request)

    def open(self, study: str) -> None:
        """Open a study and wait for its first picture."""
        self._page.goto(f"{self._address}/viewer?StudyInstanceUIDs={study}", wait_until="domcontentloaded")
        self._page.wait_for_selector("canvas")
        self._button("trackedMeasurements-btn").wait_for()
        self._still()
        tour = self._page.get_by_text("Skip all")
        if tour.count():
            tour.click()

    def hydrate(self, series: str) -> None:
        """Double-click a series by its description, and say yes when asked whether to load it."""
        try:
            self._page.locator('[data-cy^="study-browser-thumbnail"]', has_text=series).first.dblclick()
            self._button("yes-hydrate-btn").click()
            self._button("yes-hydrate-btn").wait_for(state="detached")
        except TimeoutError as error:
            raise SystemExit(f"WRONG: the viewer does not offer to load {series!r}") from error
        self._still()

    def measurements(self) -> list[str]:
        """Return the SOP Instance UID of the image of each measurement."""
        return list(self._page.evaluate(MEASUREMENTS))

    def segments(self) -> list[str]:
        """Return the names of all segments."""
        return list(self._page.evaluate(SEGMENTS))

    def jump_to(self, number: int) -> None:
        """Click on a measurement, from 1, and take the window for soft tissue."""
        self._button("trackedMeasurements-btn").click()
        self._page.locator('[data-cy="data-row"]').nth(number - 1).click()
        self._still()
        # Over the viewport, where the key counts, and away from the anatomy.
        self._page.mouse.move(VIEWPORT["width"] / 2, VIEWPORT["height"] - 60)
        self._page.keyboard.press(SOFT_TISSUE)
        self._still()

    def picture(self, path: Path, *, panel: str) -> None:
        """Save what is to be seen, with the panel of ``trackedMeasurements`` or ``panelSegmentation`` beside it."""
        self._button(f"{panel}-btn").click()
        path.write_bytes(self._still())

    def _still(self) -> bytes:
        """Wait until the page looks the same for a second: software rendering draws what it loaded a while later."""
        before = b""
        for _ in range(PATIENCE // 1000):
            now = self._page.screenshot()
            if now == before:
                return now
            before = now
            self._page.wait_for_timeout(1000)
        raise SystemExit("the viewer does not come to rest")

    def _button(self, name: str) -> Locator:
        return self._page.locator(f'[data-cy="{name}"]').first

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text[:300])

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self._address, "blob:", "data:")):
            self.elsewhere.append(request.url)


@contextmanager
def ohif(chromium: str, address: str) -> Iterator[Viewer]:
    """Run the browser on an empty profile."""
    how: dict[str, Any] = {"headless": True, "viewport": VIEWPORT, "args": list(FLAGS)}
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(profile, executable_path=chromium, **how)
        try:
            yield Viewer(context.pages[0], address)
        finally:
            context.close()
