"""Settings of the audit trail (PS3.15 A.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from m3node.settings.types import Fingerprint, Section, TlsVersion


class SyslogSettings(Section):
    """A repository of audit messages, reached by syslog over TLS (RFC 5424, RFC 5425). Off without a host.

    Attributes
    ----------
    ca_file, certificate_sha256, name
        As of a destination (`m3node.settings.Destination`): whom we take for it; ``name`` is that of its certificate,
        where it is not ``host``.
    client_certificate_file, client_key_file, client_key_password_file : Path or None
        PEM, where it wants a certificate of ours.
    """

    host: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    name: str = ""
    ca_file: Path | None = None
    certificate_sha256: tuple[Fingerprint, ...] = ()
    client_certificate_file: Path | None = None
    client_key_file: Path | None = None
    client_key_password_file: Path | None = None
    minimum: TlsVersion = "1.2"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.host and (self.ca_file or self.certificate_sha256 or self.client_certificate_file):
            raise ValueError("audit.syslog needs host")
        if self.client_certificate_file is None and (self.client_key_file or self.client_key_password_file):
            raise ValueError("audit.syslog has a key or its password; set client_certificate_file as well")
        return self


class AuditSettings(Section):
    """The audit trail. It is always kept: a file a month, which its owner alone can read and nobody changes.

    Attributes
    ----------
    folder : Path or None
        ``audit`` below the data folder when not set.
    site : str
        Audit Enterprise Site ID: the department, in every message.
    """

    folder: Path | None = None
    site: str = ""
    syslog: SyslogSettings = SyslogSettings()
