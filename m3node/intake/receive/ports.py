"""Where the listener listens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that are bound.

    Attributes
    ----------
    plain : int or None
        Of DICOM in the clear; None where it is switched off.
    tls : int or None
        Of DICOM over TLS; None without a certificate.
    """

    plain: int | None
    tls: int | None
