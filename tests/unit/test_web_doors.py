"""Who is let in, by which name, with which form, and what every answer carries."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.testclient import TestClient

from ledgers import opened_ledger
from m3node.audit.events import Event, SecurityAlert, UserAuthentication
from m3node.settings import Settings
from m3node.web import signing
from m3node.web.acting import local
from m3node.web.app import make_app
from m3node.web.front import HEADERS, Front
from m3node.web.sessions import Session, Sessions
from m3node.web.signing_in import Attempt, LockOut
from m3node.web.site import Site
from web_site import BROWSER, FROM_HERE, HERE, opened_site, token_on, tree_of, words_of

PASSWORD, TOKEN = "correct horse battery", "0123456789abcdef0123456789abcdef"
PROGRAM = {"Authorization": f"Bearer {TOKEN}", "Accept": "*/*"}
PAGES = ("/", "/studies", "/studies/1.2.3", "/jobs", "/dead", "/destinations", "/about", "/metrics", "/runs/1.g1/x.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doors") / "data"
    with opened_ledger(Settings(data_dir=folder)):
        return folder


def settings(data: Path, **web: Any) -> Settings:
    """A node whose page asks for a password, a token, or both."""
    (data.parent / "password").write_text(f"{PASSWORD}\n")
    (data.parent / "token").write_text(f"{TOKEN}\n")
    return Settings(data_dir=data, web=web)


@pytest.fixture
def guarded(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, TestClient]]:
    monkeypatch.setattr(signing, "DELAY_SECONDS", 0.0)
    files = {"password_file": data.parent / "password", "token_file": data.parent / "token", "user": "anna"}
    with opened_site(settings(data, **files)) as opened:
        yield opened


@pytest.fixture
def open_to_all(data: Path) -> Iterator[tuple[Site, TestClient]]:
    with opened_site(settings(data)) as opened:
        yield opened


def sign_in(client: TestClient, password: str = PASSWORD, user: str = "anna", where: str = "/sign-in") -> Any:
    fields = {"user": user, "password": password, "token": token_on(client, where), "next": "/jobs"}
    return client.post("/sign-in", data=fields, headers=FROM_HERE, follow_redirects=False)


def recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What goes to the audit trail."""
    events: list[Event] = []
    monkeypatch.setattr(site.trail, "record", events.append)
    return events


# Who


@pytest.mark.parametrize("address", PAGES)
def test_nothing_is_shown_before_somebody_has_signed_in(guarded: tuple[Site, TestClient], address: str) -> None:
    _, client = guarded
    answer = client.get(address, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/sign-in")
    assert client.get(address, headers={"Accept": "*/*"}, follow_redirects=False).status_code == 401
    # The page that looks for news by itself is told plainly.
    assert client.get(address, headers={"X-Live": "1"}, follow_redirects=False).status_code == 401


@pytest.mark.parametrize("address", ["/requeue", "/cancel", "/sign-out"])
def test_nothing_is_done_before_somebody_has_signed_in(guarded: tuple[Site, TestClient], address: str) -> None:
    _, client = guarded
    fields = {"run": "1.2.g1", "token": token_on(client, "/sign-in")}
    assert client.post(address, data=fields, headers=FROM_HERE).status_code == 401


def test_who_knows_the_password_is_let_in_and_out(
    guarded: tuple[Site, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, client = guarded
    events = recorded(site, monkeypatch)
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/jobs", follow_redirects=False).status_code == 200
    assert "Sign out anna" in words_of(tree_of(client.get("/").text))
    kept = dict(client.cookies)
    fields = {"token": token_on(client, "/")}
    answer = client.post("/sign-out", data=fields, headers=FROM_HERE, follow_redirects=False)
    assert answer.status_code == 303
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert client.get("/", follow_redirects=False).status_code == 303
    client.cookies.update(kept)  # a cookie that somebody has kept is worth nothing either
    assert client.get("/", follow_redirects=False).status_code == 303
    assert [(event.action, event.user, event.success) for event in events if isinstance(event, UserAuthentication)] == [
        ("login", "anna", True),
        ("logout", "anna", True),
    ]


@pytest.mark.parametrize(
    ("user", "password"), [("anna", "wrong"), ("bob", PASSWORD), ("", ""), ("anna", PASSWORD + " ")]
)
def test_a_wrong_password_is_refused_and_audited_without_what_was_typed(
    guarded: tuple[Site, TestClient], monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    site, client = guarded
    events = recorded(site, monkeypatch)
    answer = sign_in(client, password, user)
    assert answer.status_code == 401
    assert "wrong" in words_of(tree_of(answer.text))
    assert client.get("/", follow_redirects=False).status_code == 303
    assert [type(event) for event in events] == [UserAuthentication, SecurityAlert]
    assert "bob" not in repr(events)
    assert PASSWORD not in repr(events)


def test_who_guesses_has_to_wait_though_the_next_guess_is_right(guarded: tuple[Site, TestClient]) -> None:
    site, client = guarded
    for _ in range(3):
        assert sign_in(client, "wrong").status_code == 401
    site.lock_out.failed("testclient")  # so that the lock lasts for longer than this test
    for _ in range(9):
        site.lock_out.failed("testclient")
    answer = sign_in(client)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 60
    site.lock_out.forget("testclient")
    assert sign_in(client).status_code == 303


def test_a_lock_grows_ends_and_is_forgotten() -> None:
    now = 0.0
    lock_out = LockOut(clock=lambda: now)
    for _ in range(2):
        lock_out.failed("a")
    assert lock_out.seconds("a") == 0
    waits = []
    for _ in range(12):
        lock_out.failed("a")
        waits.append(lock_out.seconds("a"))
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == 300
    assert lock_out.seconds("b") == 0
    now = 300.0
    assert lock_out.seconds("a") == 0
    now = 1300.0
    lock_out.failed("a")
    assert lock_out.seconds("a") == 0
    for number in range(5000):
        lock_out.failed(f"10.{number}")
    assert len(lock_out._failures) == 4096


def test_of_guesses_at_once_no_more_are_looked_at_than_of_one_after_the_other() -> None:
    lock_out = LockOut(clock=lambda: 0.0)
    together = threading.Barrier(16)
    looked_at: list[int] = []

    def guess(number: int) -> None:
        together.wait()

        def wrong() -> bool:
            looked_at.append(number)
            time.sleep(0.001)  # lets the others come
            return False

        lock_out.attempt("a", wrong)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(guess, range(16)))
    assert len(looked_at) == 3
    assert lock_out.attempt("a", lambda: True) == Attempt(False, 1.0)
    assert lock_out.attempt("b", lambda: True) == Attempt(True)


def test_a_right_one_makes_up_for_wrong_ones() -> None:
    lock_out = LockOut(clock=lambda: 0.0)
    for right in (False, False, True) * 3:
        assert lock_out.attempt("a", lambda right=right: right) == Attempt(right)  # type: ignore[misc]


def test_a_machine_with_a_network_of_its_own_is_locked_out_as_one(
    guarded: tuple[Site, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, _ = guarded

    def browser(address: str) -> TestClient:
        return TestClient(make_app(site), base_url=HERE, headers=BROWSER, client=(address, 50000))

    for number in range(3):
        assert sign_in(browser(f"2001:db8::{number}"), "wrong").status_code == 401
    site.lock_out.failed("2001:db8::/64")
    assert sign_in(browser("2001:db8::9:9")).status_code == 429
    assert sign_in(browser("2001:db8:0:1::1")).status_code == 303


def test_a_program_shows_its_token(guarded: tuple[Site, TestClient], monkeypatch: pytest.MonkeyPatch) -> None:
    site, client = guarded
    events = recorded(site, monkeypatch)
    for address in ("/", "/studies", "/metrics", "/readyz"):
        assert client.get(address, headers=PROGRAM).status_code in {200, 503}
    assert client.get("/metrics", headers=PROGRAM).headers["content-type"].startswith("text/plain")
    for other in ("Bearer ", f"Basic {TOKEN}", TOKEN):  # no token is shown
        assert client.get("/metrics", headers={"Authorization": other, "Accept": "*/*"}).status_code == 401
        assert client.get("/sign-in", headers={"Authorization": other}).status_code == 200
    assert events == []
    for wrong in ("wrong", TOKEN.upper(), TOKEN + "x"):
        assert client.get("/metrics", headers={"Authorization": f"Bearer {wrong}"}).status_code == 401
    assert all(isinstance(event, SecurityAlert) for event in events)
    assert len(events) == 3  # and then it has to wait
    assert client.get("/metrics", headers=PROGRAM).status_code == 429
    assert client.get("/livez", headers=PROGRAM).status_code == 200


def test_a_token_does_nothing_but_ask(guarded: tuple[Site, TestClient]) -> None:
    _, client = guarded
    answer = client.post("/requeue", data={"run": "1.2.g1", "token": "x"}, headers={**PROGRAM, **FROM_HERE})
    assert answer.status_code == 403


def test_who_shows_wrong_tokens_keeps_no_other_machine_and_no_person_out(guarded: tuple[Site, TestClient]) -> None:
    site, client = guarded
    for _ in range(4):
        client.get("/metrics", headers={"Authorization": "Bearer wrong"})
    site.lock_out.failed("token testclient")
    assert client.get("/metrics", headers=PROGRAM).status_code == 429
    other = TestClient(make_app(site), base_url=HERE, headers=BROWSER, client=("10.1.2.3", 50000))
    assert other.get("/metrics", headers=PROGRAM).status_code == 200
    assert sign_in(client).status_code == 303


def test_two_nodes_on_one_machine_do_not_sign_each_others_people_out(guarded: tuple[Site, TestClient]) -> None:
    site, client = guarded
    assert sign_in(client).status_code == 303
    kept = dict(client.cookies)
    elsewhere = TestClient(make_app(site), base_url=HERE.replace("11180", "11181"), headers=BROWSER, cookies=kept)
    elsewhere.get("/sign-in")
    assert set(kept) < set(elsewhere.cookies)


def test_a_program_cannot_act_through_a_form_that_was_made_for_strangers(guarded: tuple[Site, TestClient]) -> None:
    _, client = guarded
    fields = {"run": "1.2.g1", "token": token_on(client, "/sign-in")}
    answer = client.post("/requeue", data=fields, headers={**PROGRAM, **FROM_HERE}, follow_redirects=False)
    assert answer.status_code == 401
    assert sign_in(client).status_code == 303
    fields["token"] = token_on(client, "/")
    answer = client.post("/requeue", data=fields, headers={**PROGRAM, **FROM_HERE}, follow_redirects=False)
    assert answer.status_code == 303  # by who has signed in, whatever else is shown


def test_secrets_are_read_anew_and_a_bad_file_lets_nobody_in(
    guarded: tuple[Site, TestClient], data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, client = guarded
    (data.parent / "password").write_text("another\n")
    assert sign_in(client).status_code == 401
    assert sign_in(client, "another").status_code == 303
    client.cookies.clear()
    for content in ("", "\n"):
        (data.parent / "password").write_text(content)
        assert sign_in(client, "").status_code == 503
    (data.parent / "token").unlink()
    assert client.get("/metrics", headers=PROGRAM).status_code == 503
    assert "web.password_file" in caplog.text
    assert "another" not in caplog.text


@pytest.mark.parametrize("host", ["localhost:11180/static/x?", "localhost:11180/sign-in?", "localhost/livez?"])
def test_no_name_makes_a_page_one_that_is_open_to_all(
    guarded: tuple[Site, TestClient], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    # Whatever the framework makes of an address, what is asked for is looked at, not how.
    site, _ = guarded
    monkeypatch.setattr(Front, "_is_ours", lambda *_: True)
    monkeypatch.setattr(
        Request, "url", property(lambda self: URL(f"http://{self.headers['host']}{self.scope['path']}"))
    )
    client = TestClient(make_app(site), base_url=HERE, headers=BROWSER)
    assert client.get("/jobs", headers={"Host": host}, follow_redirects=False).status_code == 303


def test_with_a_token_alone_people_are_told_why_they_cannot_come_in(data: Path) -> None:
    with opened_site(settings(data, token_file=data.parent / "token")) as (_, client):
        answer = client.get("/")
        assert answer.status_code == 401
        assert "web.password_file" in words_of(tree_of(answer.text))
        assert client.get("/sign-in").status_code == 404
        assert client.get("/metrics", headers=PROGRAM).status_code == 200


def test_where_nothing_is_asked_for_everything_is_open(open_to_all: tuple[Site, TestClient]) -> None:
    _, client = open_to_all
    for address in ("/", "/studies", "/metrics"):
        assert client.get(address).status_code == 200


def test_that_it_lives_is_told_to_anybody_and_how_it_does_only_in_words(guarded: tuple[Site, TestClient]) -> None:
    _, client = guarded
    assert client.get("/livez", headers={"Host": "anything"}).text == "ok\n"
    answer = client.get("/readyz", headers={"Accept": "*/*"})
    assert answer.status_code == 503
    assert not answer.json()["ready"]
    assert {frozenset(item) for item in answer.json()["checks"]} == {frozenset({"name", "state"})}
    known = client.get("/readyz", headers=PROGRAM).json()["checks"]
    assert all(item["message"] for item in known)


# By which name


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "",
        "localhost.evil.example:11180",
        "[::2]",
        "localhost/static/x?",
        "localhost:11180/static/x?",
        "localhost:11180#",
        "evil@localhost",
        "[::1]evil",
        "localhost:80:evil",
    ],
)
def test_a_name_of_somebody_else_is_refused(open_to_all: tuple[Site, TestClient], host: str) -> None:
    _, client = open_to_all
    assert client.get("/studies", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:11180", "127.0.0.1:9", "[::1]:11180", "node.example:443", "10.1.2.3"]
)
def test_its_own_names_are_answered(data: Path, host: str) -> None:
    web = {"names": ["Node.example"], "host": "127.0.0.1"}
    with opened_site(settings(data, **web)) as (site, client):
        app = client.app

        async def reached_at(scope: Any, receive: Any, send: Any) -> None:
            scope["server"] = ("10.1.2.3", 11180)  # the address that the connection came to
            await app(scope, receive, send)

        assert TestClient(reached_at).get("/studies", headers={"Host": host}).status_code == 200
        assert site.settings.web.names


# With which form


def test_only_a_form_of_this_page_changes_something(open_to_all: tuple[Site, TestClient]) -> None:
    site, client = open_to_all
    token = token_of(site, client)
    fields = {"destination": "a", "name": "b", "token": token}
    done = client.post("/requeue", data=fields, headers=FROM_HERE, follow_redirects=False)
    assert done.status_code == 303
    refused: dict[str, dict[str, str]] = {
        "a page elsewhere": {"Origin": "http://evil.example"},
        "a page on another port": {"Origin": "http://127.0.0.1:8080"},
        "nobody": {},
        "an opaque origin": {"Origin": "null"},
        "somebody without an origin": {"Sec-Fetch-Site": "same-origin"},
        "a page elsewhere, as the browser says": {"Origin": HERE, "Sec-Fetch-Site": "cross-site"},
        "another scheme": {"Origin": HERE.replace("http", "https")},
    }
    for who, headers in refused.items():
        assert client.post("/requeue", data=fields, headers=headers).status_code == 403, who
    behind_a_proxy = {"Origin": HERE.replace("http", "https"), "Sec-Fetch-Site": "same-origin"}
    assert client.post("/requeue", data=fields, headers=behind_a_proxy, follow_redirects=False).status_code == 303
    for wrong in ("", "x", token[:-1], token.upper()):
        answer = client.post("/requeue", data={**fields, "token": wrong}, headers=FROM_HERE)
        assert answer.status_code == 403, wrong
    without = {name: value for name, value in fields.items() if name != "token"}
    assert client.post("/requeue", data=without, headers=FROM_HERE).status_code == 403
    client.cookies.clear()
    assert client.post("/requeue", data=fields, headers=FROM_HERE).status_code == 403


def test_forms_that_are_refused_by_the_hundred_do_not_fill_the_log(
    open_to_all: tuple[Site, TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    _, client = open_to_all
    for _ in range(20):
        assert client.post("/requeue", data={"run": "1.2.g1"}).status_code == 403
    assert caplog.text.count("a form from testclient was refused") == 3


def token_of(site: Site, client: TestClient) -> str:
    """A token of this browser's session, as one of its forms would carry it."""
    client.get("/dead")
    (cookie,) = client.cookies.values()
    session = site.sessions.read(cookie.strip('"'))
    assert session is not None
    return site.sessions.form_token(session)


def test_the_form_of_another_session_is_refused(open_to_all: tuple[Site, TestClient]) -> None:
    site, client = open_to_all
    other = token_of(site, client)
    client.cookies.clear()
    assert token_of(site, client) != other
    answer = client.post("/requeue", data={"run": "1.2.g1", "token": other}, headers=FROM_HERE)
    assert answer.status_code == 403


@pytest.mark.parametrize("address", ["/requeue", "/cancel", "/sign-out"])
def test_nothing_is_changed_by_asking(open_to_all: tuple[Site, TestClient], address: str) -> None:
    _, client = open_to_all
    assert client.get(address).status_code == 405


def test_a_form_that_is_none_or_too_long_is_refused(open_to_all: tuple[Site, TestClient]) -> None:
    _, client = open_to_all
    client.get("/dead")
    assert client.post("/requeue", json={"run": "1.2.g1"}, headers=FROM_HERE).status_code == 400
    assert client.post("/requeue", data={"run": "1" * 70_000}, headers=FROM_HERE).status_code == 400
    many = {f"field{number}": "x" for number in range(50)}
    assert client.post("/requeue", data=many, headers=FROM_HERE).status_code == 400


@pytest.mark.parametrize("where", ["//evil.example/", "https://evil.example/", "/\\evil.example/", "evil", ""])
def test_signing_in_leads_nowhere_else(guarded: tuple[Site, TestClient], where: str) -> None:
    _, client = guarded
    fields = {"user": "anna", "password": PASSWORD, "token": token_on(client, f"/sign-in?next={where}"), "next": where}
    answer = client.post("/sign-in", data=fields, headers=FROM_HERE, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@given(st.text(max_size=40))
@example("/\\evil.example")
@example("//evil.example")
@example("///evil.example")
@example("/\t/evil.example")
def test_the_way_back_leads_nowhere_else(address: str) -> None:
    back = local(address)
    assert back.startswith("/")
    assert not back.startswith("//")
    assert "\\" not in back


# What every answer carries


@pytest.mark.parametrize(
    ("method", "address", "host"),
    [
        ("GET", "/", ""),
        ("GET", "/static/style.css", ""),
        ("GET", "/static/../app.py", ""),
        ("GET", "/nothing", ""),
        ("GET", "/livez", ""),
        ("GET", "/readyz", ""),
        ("GET", "/metrics", ""),
        ("POST", "/requeue", ""),
        ("PUT", "/", ""),
        ("GET", "/", "evil.example"),
    ],
)
def test_every_answer_has_its_headers(
    open_to_all: tuple[Site, TestClient], method: str, address: str, host: str
) -> None:
    _, client = open_to_all
    answer = client.request(method, address, headers={"Host": host} if host else {})
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "no-store" in answer.headers["cache-control"] or "no-cache" in answer.headers["cache-control"]
    assert "strict-transport-security" not in answer.headers


def test_an_error_that_nobody_expected_is_told_without_its_values(
    open_to_all: tuple[Site, TestClient], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site, client = open_to_all

    def broken() -> None:
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(site, "glance", broken)
    answer = client.get("/")
    assert answer.status_code == 500
    assert "Something went wrong" in words_of(tree_of(answer.text))
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    assert "RuntimeError" in caplog.text
    assert "Doe" not in caplog.text + answer.text
    assert client.get("/about").status_code == 500
    assert client.get("/studies").status_code == 200


def test_over_tls_browsers_are_told_to_stay_there(open_to_all: tuple[Site, TestClient]) -> None:
    _, client = open_to_all
    secure = TestClient(client.app, base_url="https://127.0.0.1:11180", headers=BROWSER)
    answer = secure.get("/")
    assert "max-age" in answer.headers["strict-transport-security"]
    assert "secure" in answer.headers["set-cookie"].lower()


# Sessions


def test_a_cookie_that_was_changed_is_none() -> None:
    sessions = Sessions(60.0)
    cookie = sessions.cookie(sessions.begin("anna"))
    assert sessions.read(cookie) is not None
    for number, letter in itertools.product(range(len(cookie)), "aA"):
        changed = cookie[:number] + letter + cookie[number + 1 :]
        assert changed == cookie or sessions.read(changed) is None
    assert Sessions(60.0).read(cookie) is None


@given(st.text(max_size=60))
def test_no_text_is_a_cookie(text: str) -> None:
    assert Sessions(60.0).read(text) is None


def test_sessions_that_nobody_signed_in_to_are_not_remembered() -> None:
    sessions = Sessions(60.0)
    for _ in range(10):
        sessions.end(sessions.begin())
    assert sessions._ended == {}


def test_sessions_that_end_at_once_all_end() -> None:
    def clock() -> float:
        time.sleep(0)  # lets another thread go first
        return 0.0

    sessions = Sessions(60.0, clock=clock)
    many = [sessions.begin("anna") for _ in range(60)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(sessions.end, many))
    assert not [one for one in many if sessions.read(sessions.cookie(one))]


def test_a_session_ends_by_itself() -> None:
    now = 0.0
    sessions = Sessions(60.0, clock=lambda: now)
    session = sessions.begin("anna")
    cookie = sessions.cookie(session)
    assert sessions.read(cookie) == Session(session.id, "anna", 0.0)
    now = 60.0
    assert sessions.read(cookie) is None
