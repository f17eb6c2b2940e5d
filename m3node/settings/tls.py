"""Settings of TLS at the listener (PS3.15 B.12)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from m3node.settings.types import Port, Positive, Section, TlsVersion


class ListenerTls(Section):
    """DICOM TLS: a port of its own beside the plain one, or instead of it. Off without a certificate.

    The files are looked at for each new connection: new ones are taken without a restart.

    Attributes
    ----------
    port : int
        2762 is registered for DICOM over TLS; 0 takes a free one.
    certificate_file : Path or None
        PEM of our certificate, and of the authorities between it and the root.
    key_file : Path or None
        PEM of its key, where it is not in the same file.
    key_password_file : Path or None
        A file that holds the key's password.
    client_certificates : str
        ``required``: a caller shows one that ``ca_file`` vouches for; ``none``: the connection is encrypted, and the
        caller is known by title and address only.
    ca_file : Path or None
        PEM of the authorities that signed callers' certificates.
    minimum : str
        The oldest version; 1.3 where every caller speaks it.
    handshake_seconds : float
        How long a caller has for it.
    """

    port: Port = 2762
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password_file: Path | None = None
    client_certificates: Literal["required", "none"] = "required"
    ca_file: Path | None = None
    minimum: TlsVersion = "1.2"
    handshake_seconds: Positive = 10.0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.certificate_file is None:
            if self.key_file is not None or self.ca_file is not None or self.key_password_file is not None:
                raise ValueError("listener.tls needs certificate_file")
        elif self.client_certificates == "required" and self.ca_file is None:
            raise ValueError('listener.tls needs ca_file, which vouches for callers, or client_certificates = "none"')
        return self
