"""Sessions: a cookie that only this process can have written, and a token in every form that goes with it.

Nothing is kept of a session but that it was ended; the key is made at the start, so a restart ends all of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_SEPARATOR = "."


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that was here before.

    Attributes
    ----------
    id : str
        Random.
    user : str
        Who has signed in; empty when nobody has.
    began : float
        On this process's monotonic clock.
    """

    id: str
    user: str
    began: float


class Sessions:
    """The sessions of one process; safe for threads.

    Parameters
    ----------
    seconds : float
        How long one lasts.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._ended: dict[str, float] = {}

    def begin(self, user: str = "") -> Session:
        """Return a new session; one that was there before a sign-in is not the one after it."""
        return Session(secrets.token_urlsafe(16), user, self._clock())

    def end(self, session: Session) -> None:
        """Let a session be worth nothing from now on, although its cookie may be shown again.

        One that nobody has signed in to is not remembered: it opens nothing, and strangers may have any number.
        """
        if not session.user:
            return
        with self._lock:
            self._ended = {id_: began for id_, began in self._ended.items() if self._lasts(began)} | {
                session.id: session.began
            }

    def cookie(self, session: Session) -> str:
        """Return what the cookie holds."""
        words = json.dumps([session.id, session.user, session.began]).encode()
        text = base64.urlsafe_b64encode(words).decode("ascii")
        return f"{text}{_SEPARATOR}{self._sign('cookie', text)}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None when it is not ours, is over, or was ended."""
        text, _, signature = cookie.partition(_SEPARATOR)
        if not _equal(signature, self._sign("cookie", text)):
            return None
        id_, user, began = json.loads(base64.urlsafe_b64decode(text))
        return Session(id_, user, began) if self._lasts(began) and id_ not in self._ended else None

    def form_token(self, session: Session) -> str:
        """Return what a form of this session carries."""
        return self._sign("form", session.id)

    def is_form_token(self, session: Session, token: str) -> bool:
        """Whether a form was made for this session."""
        return _equal(token, self.form_token(session))

    def _lasts(self, began: float) -> bool:
        return self._clock() - began < self._seconds

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
