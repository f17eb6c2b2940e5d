"""Calling a peer over TLS: the handshake, bounded in time, and why it failed, in words of who set it up."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from m3node.errors import ConfigError, M3NodeError
from m3node.settings import TlsVersion
from m3node.tls.contexts import PinError, check_pins, client_context, fingerprint
from m3node.tls.reasons import why_no_tls

_LOOK_SECONDS = 3.0
_NAMES_SHOWN, _NAME_SHOWN = 3, 100

_NOT_YET, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21}
_OTHER_NAME = {62, 64}
"""OpenSSL's codes (X509_V_ERR_…)."""

_NO_TLS = {
    "BAD_RECORD_TYPE",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
}
_TOO_OLD = {"NO_PROTOCOLS_AVAILABLE", "TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"}
_ABOUT_OURS = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_NO_CERTIFICATE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
}
"""OpenSSL's reasons. An alert that is about our certificate also comes when we have shown none."""


class HandshakeError(M3NodeError):
    """There is no TLS connection to the peer, and nothing of ours has left.

    Parameters
    ----------
    message : str
        Why; a clause about the peer.
    untrusted : bool
        Whether the peer showed a certificate that does not hold.
    """

    def __init__(self, message: str, *, untrusted: bool) -> None:
        super().__init__(message)
        self.untrusted = untrusted


def is_untrusted(error: Exception) -> bool:
    """Whether an error of `secure` says that the peer is not who it should be."""
    return isinstance(error, PinError) or (isinstance(error, HandshakeError) and error.untrusted)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a peer is called over TLS.

    Attributes
    ----------
    ca_file : Path or None
        PEM of the authorities that vouch for it; the system's without it.
    name : str
        The name that its certificate has to bear, where it is not that of the host.
    pins : tuple of str
        Fingerprints of the certificates that it may show (`m3node.tls.contexts.client_context`).
    client_certificate_file, client_key_file, client_key_password_file : Path or None
        What we show.
    minimum : str
        The oldest version of TLS.
    section : str
        Where these stand in the settings, for messages: ``destination pacs``.
    """

    ca_file: Path | None = None
    name: str = ""
    pins: tuple[str, ...] = ()
    client_certificate_file: Path | None = None
    client_key_file: Path | None = None
    client_key_password_file: Path | None = None
    minimum: TlsVersion = "1.2"
    section: str = ""

    def context(self) -> ssl.SSLContext:
        """Read the files, each time: renewed ones count from the next connection on.

        Raises
        ------
        ConfigError
            A file cannot be used.
        """
        return client_context(
            ca_file=self.ca_file,
            client_certificate_file=self.client_certificate_file,
            client_key_file=self.client_key_file,
            client_key_password_file=self.client_key_password_file,
            pins=self.pins,
            minimum=self.minimum,
            section=self.section,
        )


def secure(transport: socket.socket, address: tuple[str, int], terms: Terms, seconds: float) -> ssl.SSLSocket:
    """Shake hands over a connection, and see that the peer is who it should be.

    Parameters
    ----------
    transport : socket.socket
        Connected, and nothing sent; closed when this fails.
    address : tuple of (str, int)
        Host and port as they were called.
    terms : Terms
        Who the peer has to be.
    seconds : float
        How long the handshake may take.

    Returns
    -------
    ssl.SSLSocket
        No byte of ours but the handshake has gone over it.

    Raises
    ------
    HandshakeError
        The peer is not to be trusted, does not trust us, or speaks no TLS.
    PinError
        It showed a certificate that is not pinned.
    ConfigError
        A file of the terms cannot be used.
    """
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(transport.close)
        context = terms.context()
        transport.settimeout(seconds)
        try:
            name = called_name(address[0], terms)
            name.encode("idna")  # wrap_socket would leave the connection open where this fails
            shaken = context.wrap_socket(transport, server_hostname=name, do_handshake_on_connect=False)
            on_failure.callback(shaken.close)
            shaken.do_handshake()
        except (OSError, ValueError) as error:
            raise handshake_error(error, address, terms) from error
        check_pins(shaken, terms.pins)
        on_failure.pop_all()
    return shaken


def handshake_error(error: Exception, address: tuple[str, int], terms: Terms) -> HandshakeError:
    """Return what to raise for an error of a handshake."""
    return HandshakeError(why_not(error, address, terms), untrusted=isinstance(error, ssl.SSLCertVerificationError))


def called_name(host: str, terms: Terms) -> str:
    """Return the name that the certificate has to bear.

    An IPv6 address stands there without the zone it is reached in, a name without the dot that ends it for resolvers.
    """
    return terms.name or host.partition("%")[0].removesuffix(".")


def why_not(error: Exception, address: tuple[str, int], terms: Terms) -> str:
    """Say why there is no TLS connection, and what to look at; a clause about the peer.

    What the peer's certificate says of itself is looked up over a connection of its own, on which nothing is sent.

    Parameters
    ----------
    error : Exception
        Of the handshake.
    address : tuple of (str, int)
        Host and port as they were called.
    terms : Terms
        Who the peer has to be.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_its_certificate(error, address, terms)
    if isinstance(error, TimeoutError):
        return f"it does not answer the TLS handshake: is {address[1]} its TLS port?"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return (
            f"it hangs up in the TLS handshake: is {address[1]} its TLS port, and does it want a certificate of ours?"
        )
    if isinstance(error, ssl.SSLError):
        return _of_protocol(error, address, terms)
    if isinstance(error, ValueError):
        return f"{called_name(address[0], terms)!r} cannot be the name in a certificate"
    return why_no_tls(error)


def why_lost(error: Exception, address: tuple[str, int], terms: Terms) -> str:
    """Say why a connection was lost behind the handshake, before the peer said anything; a clause about it."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return why_not(error, address, terms)
    return "it hangs up behind the TLS handshake: does it accept our certificate?"


def _of_protocol(error: ssl.SSLError, address: tuple[str, int], terms: Terms) -> str:
    reason = error.reason or ""
    if reason in _NO_TLS:
        return f"it answers, but not in TLS: is {address[1]} its TLS port?"
    if reason in _TOO_OLD:
        return f"it does not speak TLS {terms.minimum}" + (" or later" if terms.minimum == "1.2" else "")
    if reason in _ABOUT_OURS and terms.client_certificate_file is None:
        return "it wants a certificate of ours: set client_certificate_file"
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE" and terms.client_certificate_file is None:
        return "it refuses the handshake: it may want a certificate of ours, or knows no cipher suite of ours"
    return why_no_tls(error)


def _of_its_certificate(error: ssl.SSLCertVerificationError, address: tuple[str, int], terms: Terms) -> str:
    code = error.verify_code
    if code in _UNKNOWN_AUTHORITY:
        who = (
            f"an authority in ca_file ({terms.ca_file})"
            if terms.ca_file
            else "an authority of this system: set ca_file"
        )
        return f"its certificate is not signed by {who}; {_seen(address, terms)}".removesuffix("; ")
    if code in _OTHER_NAME:
        shown = _look(address, terms)
        names = f", but {_names(shown)}" if shown is not None else ""
        return f"the name in its certificate is not {called_name(address[0], terms)}{names}"
    if code in (_EXPIRED, _NOT_YET):
        return _of_its_time(code, address, terms)
    return why_no_tls(error)


def _of_its_time(code: int, address: tuple[str, int], terms: Terms) -> str:
    span = _span(_look(address, terms))
    if span is None:
        return "its certificate has expired" if code == _EXPIRED else "its certificate is not valid yet"
    begins, ends = span
    if code == _EXPIRED and ends < datetime.now(UTC):
        return f"its certificate has expired on {ends:%Y-%m-%d}"
    if code == _NOT_YET and begins > datetime.now(UTC):
        return f"its certificate is valid from {begins:%Y-%m-%d %H:%M} UTC on: compare the clocks"
    return "a certificate of its authorities has expired, or is not valid yet"


def _seen(address: tuple[str, int], terms: Terms) -> str:
    """Name the certificate, so that whoever knows the device can pin it."""
    shown = _look(address, terms)
    return "" if shown is None else f"its SHA-256 is {fingerprint(shown)}"


def _look(address: tuple[str, int], terms: Terms) -> bytes | None:
    """Return the certificate (DER) that the peer shows to anybody; None when it shows none.

    Python tells nothing of a certificate that did not hold. Ours is not shown to whoever that is.
    """
    try:
        context = replace(
            terms, client_certificate_file=None, client_key_file=None, client_key_password_file=None
        ).context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(address, timeout=_LOOK_SECONDS) as transport,
            context.wrap_socket(transport, server_hostname=called_name(address[0], terms)) as shaken,
        ):
            return shaken.getpeercert(binary_form=True)
    except (ConfigError, OSError, ValueError):
        return None


def _span(der: bytes | None) -> tuple[datetime, datetime] | None:
    from cryptography import x509  # noqa: PLC0415 - only where something is wrong

    if der is None:
        return None
    try:
        certificate = x509.load_der_x509_certificate(der)
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError:  # it is stricter than OpenSSL
        return None


def _names(der: bytes) -> str:
    """Name what a certificate is for; a name of it is public, and shown without what a terminal would obey."""
    from cryptography import x509  # noqa: PLC0415 - only where something is wrong

    try:
        held = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return "it bears none"
    names = [str(name.value)[:_NAME_SHOWN] for name in held.value if isinstance(name, x509.DNSName | x509.IPAddress)]
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
    return "".join(character if character.isprintable() else "?" for character in shown) or "it bears none"
