"""Who may see the page: a user with a password, a program with a token; both are read from their files each time."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from m3node.errors import ConfigError
from m3node.settings.web import WebSettings

FREE_FAILURES = 3
"""So many wrong passwords in a row cost nothing: people mistype."""
LONGEST_LOCK = 300.0
"""Seconds that an address is locked out at most."""
FORGOTTEN_AFTER = 900.0
"""Failures older than that do not count."""
ADDRESSES = 4096
"""How many are remembered; the one that failed longest ago is forgotten first."""


class Secrets:
    """Checks passwords and tokens.

    Parameters
    ----------
    web : WebSettings
        Names the files.
    """

    def __init__(self, web: WebSettings) -> None:
        self._web = web

    @property
    def asked_for(self) -> bool:
        """Whether anybody has to show anything."""
        return self.for_people or self._web.token_file is not None

    @property
    def for_people(self) -> bool:
        """Whether there is a password, so that somebody can sign in."""
        return self._web.password_file is not None

    def is_password(self, user: str, password: str) -> bool:
        """Whether user and password are right; takes as long for either being wrong.

        Raises
        ------
        ConfigError
            The file cannot be read, or holds nothing.
        """
        if self._web.password_file is None:
            return False
        right = _secret(self._web.password_file, "web.password_file")
        return _equal(user, self._web.user) & _equal(password, right)

    def is_token(self, token: str) -> bool:
        """Whether a program's token is right.

        Raises
        ------
        ConfigError
            The file cannot be read, or holds nothing.
        """
        if self._web.token_file is None:
            return False
        return _equal(token, _secret(self._web.token_file, "web.token_file"))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of showing a secret: that it was right, or how many seconds nothing is looked at."""

    right: bool
    wait: float = 0.0


@dataclass(slots=True)
class _Failures:
    count: int
    at: float


class LockOut:
    """Lets who fails wait, twice as long each time; safe for threads.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def attempt(self, address: str, check: Callable[[], bool]) -> Attempt:
        """Look at a secret unless the address has to wait; one at a time, else many guesses at once count as the first.

        Raises
        ------
        ConfigError
            From ``check``; then it counts as no attempt.
        """
        with self._one_at_a_time:
            if wait := self.seconds(address):
                return Attempt(False, wait)
            right = check()
            if right:
                self.forget(address)
            else:
                self.failed(address)
            return Attempt(right)

    def seconds(self, address: str) -> float:
        """Return how long an address has to wait before it may try again; 0 when it may now."""
        with self._lock:
            known = self._failures.get(address)
            if known is None or known.count < FREE_FAILURES:
                return 0.0
            lock = min(2.0 ** min(known.count - FREE_FAILURES, 30), LONGEST_LOCK)
            return max(0.0, known.at + lock - self._clock())

    def failed(self, address: str) -> None:
        """Note a wrong password or token."""
        with self._lock:
            now = self._clock()
            known = self._failures.pop(address, None)
            if known is None or now - known.at > FORGOTTEN_AFTER:
                known = _Failures(0, now)
            self._failures[address] = _Failures(known.count + 1, now)
            while len(self._failures) > ADDRESSES:
                self._failures.popitem(last=False)

    def forget(self, address: str) -> None:
        """Note a right one."""
        with self._lock:
            self._failures.pop(address, None)


def neighbourhood(address: str) -> str:
    """Return what locks out together: an address, or the network of an IPv6 one, of which a machine has all.

    >>> neighbourhood("10.1.2.3"), neighbourhood("2001:db8::1:2:3"), neighbourhood("::ffff:10.1.2.3")
    ('10.1.2.3', '2001:db8::/64', '10.1.2.3')
    """
    try:
        known = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(known) >> 64 << 64, 64)))


def _secret(file: Path, setting: str) -> str:
    try:
        secret = file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{setting} {file} cannot be read: {why}") from error
    if not secret:
        raise ConfigError(f"{setting} {file} is empty; write the secret into it")
    return secret


def _equal(one: str, other: str) -> bool:
    """Compare digests, so that neither length nor beginning of the right value can be measured."""
    left, right = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (one, other))
    return hmac.compare_digest(left, right)
