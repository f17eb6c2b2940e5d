"""What the conformance statement says of TLS: read from the contexts that speak it and from the settings' defaults."""

from __future__ import annotations

import re

from documents.markers import table
from m3node.settings import DeliverySettings, ListenerTls, SyslogSettings, WebSettings
from m3node.tls.contexts import client_context
from m3node.tls.in_use import EXPIRY_WARNING_DAYS


def tls_tables() -> dict[str, str]:
    """The tables of the section on security, by name."""
    return {"tls-suites": _suites(), "tls-defaults": _defaults()}


def _suites() -> str:
    context = client_context(
        ca_file=None,
        client_certificate_file=None,
        client_key_file=None,
        client_key_password_file=None,
        pins=("0" * 64,),
        minimum="1.2",
    )
    rows = [
        (suite["protocol"].replace("TLSv", "TLS "), f"`{iana_name(suite['name'])}`") for suite in context.get_ciphers()
    ]
    return table(("version", "cipher suite"), rows)


def iana_name(name: str) -> str:
    """How the standards call a suite that OpenSSL calls so."""
    if name.startswith("TLS_"):
        return name
    exchange, cipher = re.fullmatch(r"(ECDHE-\w+?)-(.*)", name).groups()  # type: ignore[union-attr]
    cipher = cipher if cipher.endswith(("256", "384")) and "POLY1305" not in cipher else f"{cipher}-SHA256"
    cipher = re.sub(r"^AES(\d+)", r"AES-\1", cipher)
    return f"TLS_{exchange}_WITH_{cipher}".replace("-", "_")


def _defaults() -> str:
    tls = ListenerTls()
    oldest = {tls.minimum, DeliverySettings().tls_minimum, SyslogSettings().minimum, WebSettings().minimum}
    return table(
        ("parameter", "set by", "default"),
        [
            ("port for DICOM over TLS", "`listener.tls.port`", f"{tls.port}, where there is a certificate"),
            ("our certificate", "`listener.tls.certificate_file`, `key_file`", tls.certificate_file or "none: no TLS"),
            ("certificates of callers", "`listener.tls.client_certificates`", tls.client_certificates),
            ("authorities that vouch for callers", "`listener.tls.ca_file`", tls.ca_file or "none"),
            ("a handshake is over within", "`listener.tls.handshake_seconds`", f"{tls.handshake_seconds:g} s"),
            (
                "oldest version, as whoever is called and as whoever calls",
                "`listener.tls.minimum`, `delivery.tls_minimum`, `audit.syslog.minimum`, `web.minimum`",
                ", ".join(sorted(f"TLS {version}" for version in oldest)),
            ),
            ("a certificate counts as about to expire", "–", f"{EXPIRY_WARNING_DAYS} days before"),
        ],
    )
