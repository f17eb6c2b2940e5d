"""Settings of the status page, health and metrics."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import model_validator

from m3node.settings.types import Port, Positive, Section, TlsVersion


class WebSettings(Section):
    """The status page, and beside it ``/livez``, ``/readyz`` and ``/metrics``.

    Attributes
    ----------
    enabled : bool
        Whether ``m3node serve`` has it.
    host : str
        Address to bind; the default is reached from this machine only. Any other needs TLS, and a password or a token.
    port : int
        0 takes a free one.
    names : tuple of str
        Names by which browsers may ask for it, besides ``host`` and those of loopback.
    user, password_file
        Who may see the page; asked for wherever ``password_file`` is set.
    token_file : Path or None
        Holds a token that programs show as ``Authorization: Bearer``, for ``/metrics`` and all else.
    certificate_file, key_file, key_password_file
        PEM; HTTPS with them, HTTP without.
    session_hours : float
        How long a sign-in lasts.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 11180
    names: tuple[str, ...] = ()
    user: str = "m3node"
    password_file: Path | None = None
    token_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password_file: Path | None = None
    minimum: TlsVersion = "1.2"
    session_hours: Positive = 12.0

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.certificate_file is None and (self.key_file is not None or self.key_password_file is not None):
            raise ValueError("web.key_file needs web.certificate_file")
        if self.enabled and not self.loopback:
            if self.certificate_file is None:
                raise ValueError("web.host is not of this machine alone: set web.certificate_file, for HTTPS")
            if self.password_file is None and self.token_file is None:
                raise ValueError("web.host is not of this machine alone: set web.password_file or web.token_file")
        return self
