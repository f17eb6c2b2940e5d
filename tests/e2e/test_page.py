"""The page of a real node, in Debian's Chromium: what a person sees, does and is told, and that nothing else happens.

One node has one study, of a patient whose name is a script, and an archive that is down until a test has it up. Every
tab insists that nothing complained and that nothing outside was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browsing import AXE, PHONE, Tab, chromium, tab
from playwright.sync_api import Browser, expect

from certified import Authority
from conftest import missing
from fake_pacs import fake_pacs
from m3node.evaluation.ct_writer import seeded_uid
from ports import free_port
from quick_node import SETTINGS
from quick_series import SECONDS, quick_environment, quick_series, series_uid
from served import ServedNode
from waiting import wait_for

SEED = "seen on the page"
STUDY = seeded_uid(SEED, "study")
RUN = f"{series_uid(SEED)}.g1"
OBJECTS = 4
HOSTILE = {
    "PatientName": "<script>ran()</script>^Eve",
    "PatientID": '"><svg onload=window.ran=1>',
    "StudyDescription": "</title></td><script>window.ran=1</script>",
}
PAGES = ("/", "/studies", f"/studies/{STUDY}", "/jobs", "/dead", "/destinations", "/about")
WAYS = {
    "desktop, light": {"color_scheme": "light"},
    "desktop, dark": {"color_scheme": "dark"},
    "phone, light": {"color_scheme": "light", "viewport": PHONE},
    "phone, dark": {"color_scheme": "dark", "viewport": PHONE},
}
NOTE_STATES = """study => {
  window.states = [];
  window.progress = [];
  const note = () => {
    const state = document.querySelector(`[data-study="${study}"] .badge`)?.textContent ?? "";
    if (state !== window.states.at(-1)) window.states.push(state);
    const bar = document.querySelector("[data-run] progress[aria-label=looking]");
    if (bar && bar.position !== window.progress.at(-1)) window.progress.push(bar.position);
  };
  note();
  const all = {subtree: true, childList: true, characterData: true, attributes: true};
  new MutationObserver(note).observe(document.body, all);
}"""
"""Notes each state of a study, and how far its job is, as the page comes to show it."""
PAUSE = 60_000
"""Milliseconds that Playwright waits for what comes by itself."""


@dataclass(frozen=True)
class Seen:
    """The node, the port that its archive has when it is up, and what the overview showed meanwhile."""

    node: ServedNode
    origin: str
    archive: int
    states: list[str]
    progress: list[float]


@pytest.fixture(scope="module")
def browser(program: Callable[[str], str]) -> Iterator[Browser]:
    if not AXE.exists():
        missing("axe-core (npm ci in tests/e2e/viewer)")
    with chromium(program("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Look at the overview of an empty node, send a study, and watch until its objects are dead letters."""
    root = tmp_path_factory.mktemp("page")
    archive, port = free_port(), free_port()
    toml = f"""{SETTINGS}
[delivery]
retry_first_seconds = 0.2
give_up_hours = 0.0003
[[destinations]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = {archive}
[web]
port = {port}
"""
    node = ServedNode(root / "node", toml, quick_environment(**{SECONDS: 8}))
    origin = f"http://127.0.0.1:{port}"
    files = quick_series(root / "series", SEED, **HOSTILE)
    try:
        node.start()
        node.until(lambda: json.loads((root / "node" / "ready").read_text()).get("web_port") == port)
        with tab(browser, origin) as watching:
            watched = _watched(watching, node, files, archive, origin)
        yield watched
        assert node.stop() == 0
        assert "Traceback" not in node.log
        assert "unexpected" not in node.log
    finally:
        node.clean_up()


def _watched(watching: Tab, node: ServedNode, files: tuple[Path, ...], archive: int, origin: str) -> Seen:
    page = watching.page
    watching.open("/")
    expect(page.locator("#newest ~ .empty")).to_be_visible()
    page.evaluate(NOTE_STATES, STUDY)
    node.send(*files)
    expect(page.locator(f'[data-study="{STUDY}"] .badge')).to_have_text("not delivered", timeout=2 * PAUSE)
    return Seen(node, origin, archive, *page.evaluate("() => [window.states, window.progress]"))


def test_a_study_appears_and_changes_while_it_is_processed_without_a_reload(seen: Seen) -> None:
    # What noted it was in the page: a reload would have taken it away.
    assert seen.states[0] == "", "it was there before it was sent"
    assert "running" in seen.states
    assert seen.states[-1] == "not delivered"
    assert seen.progress == sorted(seen.progress)
    assert 0 < max(seen.progress) <= 1


def test_a_study_shows_its_time_line_its_lesions_and_its_pictures(browser: Browser, seen: Seen) -> None:
    with tab(browser, seen.origin) as opened:
        opened.open("/")
        opened.page.locator(f'[data-study="{STUDY}"] a').first.click()
        opened.page.wait_for_url(f"**/studies/{STUDY}")
        run = opened.page.locator(f'[data-run="{RUN}"]')
        for moment in ("received", "complete", "detected", "built"):
            assert run.locator(f'[data-moment="{moment}"]').get_attribute("data-progress") == "done", moment
        assert run.locator("[data-lesion]").count() == len(seen.node.findings(RUN)["lesions"]) == 1
        pictures = opened.pictures()
        assert list(pictures) == [f"/runs/{RUN}/overlay.png"]
        assert all(width > 100 for width in pictures.values())


def test_the_patients_name_shows_as_it_is_and_runs_nothing(browser: Browser, seen: Seen) -> None:
    with tab(browser, seen.origin) as opened:
        for path in PAGES:
            opened.open(path)
            assert opened.page.evaluate("() => window.ran") is None, path
            assert opened.page.locator("svg, script:not([src]), img[onerror]").count() == 0, path
        opened.open(f"/studies/{STUDY}")
        text = opened.page.locator("main").inner_text()
        assert "<script>ran()</script>" in text
        assert HOSTILE["PatientID"] in text
        assert HOSTILE["StudyDescription"] in text


def test_a_dead_letter_is_sent_again_by_a_click_and_arrives(browser: Browser, seen: Seen) -> None:
    with fake_pacs(port=seen.archive) as pacs, tab(browser, seen.origin) as opened:
        opened.open("/dead")
        letters = opened.page.locator("[data-dead]")
        before = letters.count()
        name = letters.first.get_attribute("data-dead")
        letters.first.get_by_role("button", name="Send again").click()
        expect(opened.page.locator("main [role=status]").first).to_contain_text("queued")
        expect(letters).to_have_count(before - 1)
        seen.node.until(lambda: len(pacs.kept) == 1)
        opened.open(f"/studies/{STUDY}")
        # It changes by itself when the archive has it.
        expect(opened.page.locator(f'[data-delivery="{name}"] .badge')).to_have_text("delivered", timeout=PAUSE)


def test_a_dead_letter_is_sent_again_by_the_keyboard_alone(browser: Browser, seen: Seen) -> None:
    with fake_pacs(port=seen.archive) as pacs, tab(browser, seen.origin) as opened:
        opened.open("/")
        _tab_to(opened, "Skip to content")
        _tab_to(opened, "Dead letters")
        opened.page.keyboard.press("Enter")
        opened.page.wait_for_url("**/dead")
        _tab_to(opened, "Send again")
        assert opened.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") != "none"
        opened.page.keyboard.press("Enter")
        expect(opened.page.locator("main [role=status]").first).to_contain_text("queued")
        seen.node.until(lambda: len(pacs.kept) == 1)


def test_a_dead_letter_is_sent_again_without_scripts(browser: Browser, seen: Seen) -> None:
    with fake_pacs(port=seen.archive) as pacs, tab(browser, seen.origin, java_script_enabled=False) as opened:
        opened.open("/dead")
        expect(opened.page.get_by_role("link", name="load it again")).to_be_visible()
        opened.page.get_by_role("button", name="Send again").first.click()
        expect(opened.page.locator("main [role=status]").first).to_contain_text("queued")
        seen.node.until(lambda: len(pacs.kept) == 1)


def test_what_is_open_and_what_has_the_focus_stays_while_the_page_changes(browser: Browser, seen: Seen) -> None:
    with tab(browser, seen.origin) as opened:
        opened.open("/dead")
        question = opened.page.locator("details.ask").first
        question.locator("summary").click()
        button = question.get_by_role("button")
        button.focus()
        button.evaluate("one => { window.mine = one }")
        with opened.page.expect_response("**/dead"):
            pass
        with opened.page.expect_response("**/dead"):
            pass  # the one before is shown by now
        assert opened.page.evaluate("() => document.activeElement === window.mine && window.mine.isConnected")
        expect(button).to_be_visible()


def test_updates_can_be_paused(browser: Browser, seen: Seen) -> None:
    with tab(browser, seen.origin) as opened:
        opened.page.clock.install()
        opened.open("/")
        button = opened.page.get_by_role("button", name="Pause updates")
        with opened.page.expect_response(f"{seen.origin}/"):
            opened.page.clock.run_for(10_000)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        asked: list[str] = []
        opened.page.on("request", lambda request: asked.append(request.url))
        opened.page.clock.run_for(600_000)
        assert asked == []
        with opened.page.expect_response(f"{seen.origin}/"):
            button.click()
            opened.page.clock.run_for(10_000)


def test_the_page_says_so_when_the_node_does_not_answer(browser: Browser, seen: Seen) -> None:
    with tab(browser, seen.origin, tidy=False) as opened:
        opened.open("/")
        connection = opened.page.locator("#connection")
        expect(connection).to_have_text("")
        opened.page.context.set_offline(True)
        expect(connection).to_contain_text("does not answer", timeout=PAUSE)
        opened.page.context.set_offline(False)
        expect(connection).to_have_text("", timeout=PAUSE)


@pytest.mark.parametrize("way", WAYS)
def test_axe_finds_nothing_and_nothing_is_cut_off(browser: Browser, seen: Seen, way: str) -> None:
    with tab(browser, seen.origin, **WAYS[way]) as opened:
        for path in PAGES:
            opened.open(path)
            assert opened.findings() == [], path
            assert not opened.wider_than_the_screen(), path


def test_axe_would_find_a_fault(browser: Browser, seen: Seen) -> None:
    with tab(browser, seen.origin) as opened:
        opened.open("/")
        opened.page.evaluate("() => document.querySelector('main').append(document.createElement('input'))")
        assert [one for one in opened.findings() if "label" in one]


def test_a_picture_from_elsewhere_would_be_noticed(browser: Browser, seen: Seen) -> None:
    plant = "() => { document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/outside.png'})) }"
    with tab(browser, seen.origin, tidy=False, bypass_csp=True) as opened:
        opened.open("/")
        with opened.page.expect_request("**/outside.png"):
            opened.page.evaluate(plant)
        assert opened.elsewhere == ["http://127.0.0.1:9/outside.png"]
    with tab(browser, seen.origin, tidy=False) as opened:
        opened.open("/")
        with opened.page.expect_console_message():
            opened.page.evaluate(plant)
        assert "Content Security Policy" in opened.complaints[0]  # which keeps it from being loaded


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_has_the_password_signs_in_by_the_keyboard(browser: Browser, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    port, ready = free_port(), tmp_path / "ready"
    toml = f'[web]\nport = {port}\npassword_file = "{tmp_path / "password"}"\n'
    if scheme == "https":
        shown = Authority(tmp_path).issue("page")
        toml += f'certificate_file = "{shown.certificate}"\nkey_file = "{shown.key}"\n'
    node, origin = ServedNode(tmp_path / "node", toml), f"{scheme}://127.0.0.1:{port}"
    try:
        process = node.begin("web", "--ready-file", str(ready))
        wait_for(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, node.log
        with tab(browser, origin, tidy=False, ignore_https_errors=True, **WAYS["phone, dark"]) as opened:
            page = opened.page
            page.goto(f"{origin}/")  # 401, and the form in its place
            assert opened.findings() == []
            assert not opened.wider_than_the_screen()
            for password in ("wrong", "correct horse"):
                page.get_by_label("User").focus()
                page.keyboard.type("m3node")
                page.keyboard.press("Tab")
                page.keyboard.type(password)
                page.keyboard.press("Enter")
                if password == "wrong":
                    expect(page.get_by_role("alert")).to_be_visible()
            expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
            # When the sign-in ends, an open page does not stay as it was.
            page.context.clear_cookies()
            expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
            assert opened.elsewhere == []
        assert "correct horse" not in node.log
    finally:
        node.clean_up()


def _tab_to(opened: Tab, what: str) -> None:
    """Press Tab until something has the focus; fail after as many presses as no page needs."""
    for _ in range(100):
        opened.page.keyboard.press("Tab")
        if opened.focused() == what:
            return
    raise AssertionError(f"no Tab leads to {what}")
