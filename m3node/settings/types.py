"""What settings are made of: frozen sections, and the kinds of value that many of them take."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

AETitle = Annotated[str, StringConstraints(pattern=r"^[ -\[\]-~]{1,16}$", strip_whitespace=True)]
"""One to sixteen printable ASCII characters without a backslash (PS3.5 6.2, AE)."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A name that also names a folder."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression."""


Fingerprint = Annotated[
    str,
    BeforeValidator(lambda value: value.replace(":", "").replace(" ", "").lower() if isinstance(value, str) else value),
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
]
"""SHA-256 of a certificate (of its DER), as ``openssl x509 -fingerprint -sha256`` prints it; kept in lower case."""

Network = IPv4Network | IPv6Network
"""An address or a range of addresses: ``10.1.2.3``, ``10.1.0.0/16``, ``fd00::/8``."""

TlsVersion = Literal["1.2", "1.3"]
"""The oldest version of TLS that is spoken."""


def is_address(text: str) -> bool:
    """Whether a host is given by its address, and not by a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Section(BaseModel):
    """A part of the tree: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
