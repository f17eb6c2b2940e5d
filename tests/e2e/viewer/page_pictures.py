"""The pictures of the status page that the documents show, taken of the node in the chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browsing import DESKTOP, PHONE, chromium, tab

TALL = {"viewport": {"width": DESKTOP["width"], "height": 1150}}
DARK = {"color_scheme": "dark"}
SMALL = {"viewport": PHONE, "device_scale_factor": 2}
DELIVERED = '[data-delivery^="archive/"][data-state="sent"]'

# File, what has to be there before it is taken, and how it is looked at.
Shown = tuple[str, str, dict[str, Any]]
WORKING: Shown = ("page-overview.png", '[data-run] progress[aria-label="looking"]', TALL)
DEAD: Shown = ("page-dead-letters.png", "[data-dead]", DARK)
STUDY: Shown = ("page-study.png", DELIVERED, TALL)
STUDY_ON_A_PHONE: Shown = ("page-phone.png", DELIVERED, SMALL)


def take(program: str, origin: str, path: str, shown: Shown, folder: Path) -> None:
    """Open a page and take its picture; a page that complains or asks for anything outside is an error."""
    name, awaited, how = shown
    with chromium(program) as browser, tab(browser, origin, **how) as opened:
        opened.open(path)
        opened.page.locator(awaited).first.wait_for()
        opened.pictures()  # which are there then
        opened.page.screenshot(path=folder / name)
    print(f"wrote {folder / name}")
