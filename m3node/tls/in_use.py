"""Which certificates the settings name, and how long each is still good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m3node.errors import ConfigError
from m3node.settings import Settings
from m3node.tls.certificates import CertificateView, read_certificates

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
    """

    setting: str
    file: Path
    not_after: float | None
    days_left: float | None
    error: str = ""

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
    return tuple(_look(setting, file, when) for setting, file in certificate_files(settings))


def certificate_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Name every setting that names certificates, with its file."""
    tls, syslog, web = settings.listener.tls, settings.audit.syslog, settings.web
    named: list[tuple[str, Path | None]] = [
        ("listener.tls.certificate_file", tls.certificate_file),
        ("listener.tls.ca_file", tls.ca_file),
    ]
    for destination in settings.destinations:
        for key in ("ca_file", "client_certificate_file"):
            named.append((f"destinations.{destination.name}.{key}", getattr(destination, key)))
    named += [
        ("audit.syslog.ca_file", syslog.ca_file),
        ("audit.syslog.client_certificate_file", syslog.client_certificate_file),
        ("web.certificate_file", web.certificate_file if web.enabled else None),
    ]
    return ((setting, file) for setting, file in named if file is not None)


def _look(setting: str, file: Path, now: float) -> CertificateInUse:
    try:
        views = read_certificates(file, setting)
    except ConfigError as error:
        return CertificateInUse(setting, file, None, None, str(error))
    ends = _end(views, now) if setting.endswith("ca_file") else min(view.not_after for view in views)
    return CertificateInUse(setting, file, ends, (ends - now) / _DAY)


def _end(authorities: tuple[CertificateView, ...], now: float) -> float:
    good = [view.not_after for view in authorities if view.not_after > now]
    return min(good) if good else max(view.not_after for view in authorities)
