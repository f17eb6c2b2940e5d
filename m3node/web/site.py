"""What all pages share: settings, database, sessions, patients, and how a page is made of a template."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from m3node import __version__
from m3node.audit.events import Event, InstancesAccessed
from m3node.audit.trail import AuditTrail
from m3node.errors import DatabaseError
from m3node.health.checks import Check, Seen, seen_now
from m3node.jobs.ledger import lists
from m3node.jobs.ledger.database import ledger_url
from m3node.jobs.node.amounts import age, count_of, megabytes
from m3node.jobs.node.asking import Asking
from m3node.jobs.node.glance import Glance, ask, existing_ledger
from m3node.layout import DataLayout
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.settings import Settings
from m3node.web import words
from m3node.web.patients import Patient, Patients
from m3node.web.sessions import Session, Sessions
from m3node.web.signing_in import LockOut, Secrets

_log = logging.getLogger(__name__)

GLANCE_SECONDS = 1.0
"""How old what is shown may be: many who look cost little more than one."""
ACCESS_SECONDS = 600.0
"""Looking at one study again within that is not audited again."""
_KEPT = 1000
_TITLES = {
    400: "This cannot be understood",
    401: "Please sign in",
    403: "This is not allowed",
    404: "There is nothing here",
    405: "This cannot be done here",
    413: "This is too long",
    429: "Please wait",
    500: "Something went wrong",
    503: "This does not work at the moment",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks.

    Attributes
    ----------
    session : Session or None
        Of the browser.
    user : str
        As the audit trail names it; empty for who has not signed in and has to.
    address : str
        The address that it comes from.
    form : dict of str to str
        What was posted.
    live : bool
        Whether the page asks by itself, to show what is new.
    """

    session: Session | None
    user: str
    address: str
    form: dict[str, str]
    live: bool


@dataclass(frozen=True, slots=True)
class Message:
    """What is said once, on top of the next page."""

    kind: words.Kind
    text: str


class Recent(Generic[_T]):
    """Something that is found out again when it has become old; safe for threads, of which one finds out."""

    def __init__(self, make: Callable[[], _T], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()
        self._made: tuple[_T, float] | None = None

    def get(self) -> _T:
        """Return it, as it was so many seconds ago at most."""
        with self._lock:
            if self._made is None or time.monotonic() - self._made[1] >= self._seconds:
                self._made = (self._make(), time.monotonic())
            return self._made[0]

    def forget(self) -> None:
        """Have it found out again."""
        with self._lock:
            self._made = None


class Site:
    """The page of one node.

    Parameters
    ----------
    settings : Settings
        The tree.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout = DataLayout(settings.data_dir.absolute())
        self.secrets = Secrets(settings.web)
        self.sessions = Sessions(3600 * settings.web.session_hours)
        self.lock_out = LockOut()
        self.patients = Patients(self.layout)
        self.trail = AuditTrail(settings, process="web")
        self._asking = Asking(settings, lambda: ask(settings, time.time()))
        self._seen: Recent[Seen] = Recent(self._look, GLANCE_SECONDS)
        self._engine: tuple[Engine, int] | None = None
        self._lock = threading.Lock()
        self._messages: OrderedDict[str, Message] = OrderedDict()
        self._accessed: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._templates = _templates()

    def engine(self) -> Engine:
        """Return the engine of the ledger; a file that was made anew is opened anew.

        Raises
        ------
        DatabaseError
            There is no ledger.
        """
        url = ledger_url(self.settings)
        with self._lock:
            inode = 0
            if url.get_backend_name() == "sqlite":
                try:
                    inode = (self.layout.database / "ledger.sqlite").stat().st_ino
                except OSError:
                    inode = -1
            if self._engine is None or self._engine[1] != inode:
                if self._engine is not None:
                    self._engine[0].dispose()
                    self._engine = None
                self._engine = (existing_ledger(self.settings), inode)
            return self._engine[0]

    def reader(self) -> Engine:
        """Return the engine for a page that only shows; refuses at once where the ledger was found away a moment ago.

        Raises
        ------
        DatabaseError
            There is no ledger, or it cannot be used.
        """
        seen, _ = self.seen()
        if seen is not None and seen.trouble:
            raise DatabaseError(seen.trouble)
        return self.engine()

    def close(self) -> None:
        """Let go of the database and the audit trail."""
        if self._engine is not None:
            self._engine[0].dispose()
        self.trail.close()

    def seen(self) -> Seen:
        """Return the node at a glance and its health, as they were a moment ago; waits some seconds at most."""
        return self._seen.get()

    def glance(self) -> Glance | None:
        """Return the node at a glance; None where none has ever run."""
        return self.seen()[0]

    def checks(self) -> tuple[Check, ...]:
        """Return the state of its health."""
        return self.seen()[1]

    def acted(self) -> None:
        """Note that something was done, which the next page has to show."""
        self._seen.forget()

    def patients_of(self, studies: list[str]) -> dict[str, Patient]:
        """Return whose studies these are."""
        return self.patients.of(studies, lambda left: lists.object_paths(self.engine(), left))

    def say(self, visit: Visit, kind: words.Kind, text: str) -> None:
        """Say something on top of the next page that this browser asks for."""
        if visit.session is None:
            return
        with self._lock:
            self._messages[visit.session.id] = Message(kind, text)
            while len(self._messages) > _KEPT:
                self._messages.popitem(last=False)

    def audit(self, event: Event) -> None:
        """Write an event to the audit trail."""
        self.trail.record(event)

    def audit_read(self, visit: Visit, study: str, patient: Patient) -> None:
        """Note that somebody looks at a study, unless he did a moment ago."""
        who = (visit.session.id if visit.session is not None else visit.address, study)
        now = time.monotonic()
        with self._lock:
            if now - self._accessed.get(who, -ACCESS_SECONDS) < ACCESS_SECONDS:
                return
            self._accessed.pop(who, None)
            self._accessed[who] = now
            while len(self._accessed) > _KEPT:
                self._accessed.popitem(last=False)
        self.audit(InstancesAccessed(visit.user, visit.address, study, patient.id))

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Make a page; every value is escaped."""
        visit = visit_of(request)
        message = None
        if visit.session is not None and not visit.live:
            with self._lock:
                message = self._messages.pop(visit.session.id, None)
        query = f"?{request.url.query}" if request.url.query else ""
        shared = {
            "here": request.url.path + query,
            "section": "/" + request.url.path.split("/")[1],
            "visit": visit,
            "guarded": self.secrets.asked_for,
            "form_token": self.sessions.form_token(visit.session) if visit.session is not None else "",
            "message": message,
            "now": time.time(),
            "ae_title": self.settings.listener.ae_title,
        }
        return HTMLResponse(self._templates.get_template(template).render(**shared, **values), status)

    def answer(self, request: Request, status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
        """Answer in one sentence: as a page for a person, as text for a program."""
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(f"{text}\n", status, headers)
        title = _TITLES.get(status, "This did not work")
        page = self._templates.get_template("answer.html").render(title=title, text=text, status=status)
        return HTMLResponse(page, status, headers)

    def _look(self) -> Seen:
        return seen_now(self.settings, time.time(), self._asking)


def site_of(request: Request) -> Site:
    """Return the site of a request."""
    site = request.app.state.site
    assert isinstance(site, Site)
    return site


def visit_of(request: Request) -> Visit:
    """Return who asks."""
    visit = request.scope["m3node.visit"]
    assert isinstance(visit, Visit)
    return visit


def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("m3node.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        version=__version__,
        notice=NOT_FOR_CLINICAL_USE,
        age=age,
        count_of=count_of,
        megabytes=megabytes,
        words=words,
    )
    return made
