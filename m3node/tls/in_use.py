"""Which certificates the settings name, and how long each is still good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m3node.errors import ConfigError
from m3node.settings import Destination, Settings, SyslogSettings
from m3node.tls.certificates import CertificateView, read_certificates
from m3node.tls.contexts import Own, check_own

EXPIRY_WARNING_DAYS = 30
"""Who renews by hand wants to hear of it that long before."""

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class CertificateInUse:
    """A certificate file that a setting names.

    Attributes
    ----------
    setting : str
        ``listener.tls.certificate_file``, ``destinations.pacs.ca_file``.
    file : Path
        Its file.
    not_after : float or None
        When it stops being of use, in seconds of Unix time; None when the file cannot be read.
    days_left : float or None
        Until then; negative when it is over.
    error : str
        Why the file cannot be read; empty when it can.
    unfit : str
        Why the key that belongs to it cannot be used with it: it is another one's, is not there, or may not be read;
        empty when it can. A process that has read it before goes on, and cannot be started again.
    """

    setting: str
    file: Path
    not_after: float | None
    days_left: float | None
    error: str = ""
    unfit: str = ""

    @property
    def expires_soon(self) -> bool:
        """Whether it is over, or within `EXPIRY_WARNING_DAYS`."""
        return self.days_left is not None and self.days_left < EXPIRY_WARNING_DAYS


def certificates_in_use(settings: Settings, now: float | None = None) -> tuple[CertificateInUse, ...]:
    """Look at every certificate that the settings name: of listener, destinations, audit repository and page.

    A file of our own ends with the first of its chain that ends. A file of authorities ends with the first of those
    that are still good: one that is over does no harm beside its successor.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    now : float, optional
        Unix time; the clock's when not given.
    """
    when = time.time() if now is None else now
    return tuple(_look(named, when) for named in _named(settings))


@dataclass(frozen=True, slots=True)
class _Named:
    """A file, and where its settings stand; authorities have no key."""

    section: str
    prefix: str
    file: Path
    own: Own | None = None

    @property
    def setting(self) -> str:
        return f"{self.section}.{self.prefix}{'ca_file' if self.own is None else 'certificate_file'}"


def _named(settings: Settings) -> Iterator[_Named]:
    tls, syslog, web = settings.listener.tls, settings.audit.syslog, settings.web
    yield from _own("listener.tls", "", tls.certificate_file, tls.key_file, tls.key_password_file)
    yield from _authorities("listener.tls", tls.ca_file)
    calling: list[tuple[str, Destination | SyslogSettings]] = [
        *((f"destinations.{destination.name}", destination) for destination in settings.destinations),
        ("audit.syslog", syslog),
    ]
    for section, calls in calling:
        yield from _authorities(section, calls.ca_file)
        own = (calls.client_certificate_file, calls.client_key_file, calls.client_key_password_file)
        yield from _own(section, "client_", *own)
    if web.enabled:
        yield from _own("web", "", web.certificate_file, web.key_file, web.key_password_file)


def _own(section: str, prefix: str, certificate: Path | None, *others: Path | None) -> Iterator[_Named]:
    if certificate is not None:
        key, password = others
        yield _Named(section, prefix, certificate, Own(certificate, key, password))


def _authorities(section: str, file: Path | None) -> Iterator[_Named]:
    if file is not None:
        yield _Named(section, "", file)


def _look(named: _Named, now: float) -> CertificateInUse:
    try:
        views = read_certificates(named.file, named.setting)
    except ConfigError as error:
        return CertificateInUse(named.setting, named.file, None, None, str(error))
    ends = _end(views, now) if named.own is None else min(view.not_after for view in views)
    return CertificateInUse(named.setting, named.file, ends, (ends - now) / _DAY, unfit=_unfit(named))


def _unfit(named: _Named) -> str:
    if named.own is None:
        return ""
    try:
        check_own(named.own, named.section, named.prefix)
    except ConfigError as error:
        return str(error)
    return ""


def _end(authorities: tuple[CertificateView, ...], now: float) -> float:
    good = [view.not_after for view in authorities if view.not_after > now]
    return min(good) if good else max(view.not_after for view in authorities)
