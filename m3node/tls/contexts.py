"""How TLS is spoken: one server's and one client's context, by PS3.15 B.12 (BCP 195: RFC 8996 and RFC 9325).

TLS 1.2 at least, 1.3 where the peer has it (B.12). Of TLS 1.2 only suites with an ephemeral key exchange on elliptic
curves and an authenticated cipher: no CBC, no RSA key exchange, and no DHE, whose key length Python does not let us
choose (B.13 forbids it then). No compression, no renegotiation, no session tickets.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from m3node.errors import ConfigError, M3NodeError
from m3node.settings import TlsVersion
from m3node.tls.certificates import fingerprint, look_for_certificate, peer_fingerprint, read_certificates

__all__ = [
    "TLS12_SUITES",
    "TLS13_SUITES",
    "Own",
    "PinError",
    "check_own",
    "check_pins",
    "client_context",
    "fingerprint",
    "server_context",
]

TLS13_SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""Of TLS 1.3: OpenSSL's own, which Python takes as they are."""

TLS12_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""Of TLS 1.2, in the order in which a server of ours takes them (OpenSSL's names)."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Own(NamedTuple):
    """What we show: certificate, key (where it is not in the same file), the key's password (where it has one)."""

    certificate: Path
    key: Path | None
    password: Path | None


class PinError(M3NodeError):
    """The peer showed a certificate that is not one of those that it may show."""


def server_context(
    certificate_file: Path,
    key_file: Path | None,
    key_password_file: Path | None,
    *,
    ca_file: Path | None,
    client_certificates: Literal["required", "none"],
    minimum: TlsVersion,
    section: str = "",
) -> ssl.SSLContext:
    """Make the context of something that is called.

    Parameters
    ----------
    certificate_file : Path
        PEM of our certificate, and of the authorities between it and the root; of the key, too, without `key_file`.
    key_file, key_password_file : Path or None
        PEM of the key, and a file that holds its password.
    ca_file : Path or None
        PEM of the authorities that vouch for callers; never the system's.
    client_certificates : str
        ``required`` or ``none``.
    minimum : str
        The oldest version.
    section : str
        Where the settings stand, for messages: ``listener.tls``.

    Raises
    ------
    ConfigError
        A file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, minimum)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    if client_certificates == "required":
        if ca_file is None:
            raise ConfigError(f"{_key(section, 'ca_file')} is needed to tell callers' certificates")
        _trust(context, ca_file, _key(section, "ca_file"))
        context.verify_mode = ssl.CERT_REQUIRED
    _show(context, Own(certificate_file, key_file, key_password_file), section, "")
    return context


def client_context(
    *,
    ca_file: Path | None,
    client_certificate_file: Path | None,
    client_key_file: Path | None,
    client_key_password_file: Path | None,
    pins: tuple[str, ...],
    minimum: TlsVersion,
    section: str = "",
) -> ssl.SSLContext:
    """Make the context of something that calls.

    Parameters
    ----------
    ca_file : Path or None
        PEM of the authorities that vouch for the peer; the system's without it, where there are no `pins`.
    client_certificate_file, client_key_file, client_key_password_file : Path or None
        What we show to a peer that asks who we are.
    pins : tuple of str
        Fingerprints of the certificates that the peer may show. The caller of this function has to `check_pins` after
        the handshake and before the first byte. Names are not looked at then, nor is any chain without `ca_file`.
    minimum : str
        The oldest version.
    section : str
        Where the settings stand, for messages: ``destination pacs``.

    Raises
    ------
    ConfigError
        A file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, minimum)
    if pins:
        context.check_hostname = False
        if ca_file is None:
            context.verify_mode = ssl.CERT_NONE
    if ca_file is not None:
        _trust(context, ca_file, _key(section, "ca_file"))
    elif not pins:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if client_certificate_file is not None:
        own = Own(client_certificate_file, client_key_file, client_key_password_file)
        _show(context, own, section, "client_")
    return context


def check_own(own: Own, section: str, prefix: str = "") -> None:
    """See that certificate, key and password belong together.

    Parameters
    ----------
    own : Own
        The files.
    section, prefix : str
        Where their settings stand, and how their names begin (``client_``), for messages.

    Raises
    ------
    ConfigError
        They cannot be used.
    """
    _show(_context(ssl.PROTOCOL_TLS_CLIENT, "1.2"), own, section, prefix)


def check_pins(connection: ssl.SSLSocket | ssl.SSLObject, pins: tuple[str, ...]) -> None:
    """Insist that the peer has shown one of the certificates that it may show; any will do without `pins`.

    Raises
    ------
    PinError
        It has not. The message holds the fingerprint of what it showed, which is public.
    """
    if not pins:
        return
    shown = peer_fingerprint(connection)
    if not shown:
        raise PinError("the peer showed no certificate, and certificate_sha256 names one")
    if shown not in pins:
        raise PinError(f"the peer showed a certificate that certificate_sha256 does not name: its SHA-256 is {shown}")


def _context(protocol: int, minimum: TlsVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = _VERSIONS[minimum]
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    # Level 2 whatever the system's is: RSA from 2048 bits on, curves from 224, no SHA-1 (RFC 9325 4.5).
    context.set_ciphers(":".join((*TLS12_SUITES, "@SECLEVEL=2")))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Whatever stands in the file is trusted: hospitals hand out the authority that signs, not always its root.
    context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _key(section: str, key: str) -> str:
    if not section:
        return key
    return f"{key} of {section}" if " " in section else f"{section}.{key}"


def _trust(context: ssl.SSLContext, ca_file: Path, setting: str) -> None:
    with _said_of(setting):
        look_for_certificate(ca_file)
    try:
        context.load_verify_locations(cafile=str(ca_file))
    except OSError:  # ssl.SSLError is one, too; read a moment ago, so it is what stands in it
        with _said_of(setting):
            read_certificates(ca_file)  # says which one it is
        raise ConfigError(f"a certificate in {ca_file} ({setting}) is damaged") from None


@contextmanager
def _said_of(setting: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{error} ({setting})") from None


def _show(context: ssl.SSLContext, own: Own, section: str, prefix: str) -> None:
    certificate_key, key_key, password_key = (
        _key(section, f"{prefix}{key}") for key in ("certificate_file", "key_file", "key_password_file")
    )
    of_certificate = f"{own.certificate} ({certificate_key})"
    of_key = f"{own.key} ({key_key})" if own.key is not None else of_certificate
    with _said_of(certificate_key):
        look_for_certificate(own.certificate)
    _first_byte(own.key or own.certificate, of_key)
    password = _password(own.password, of_key, password_key)
    try:
        context.load_cert_chain(own.certificate, own.key, password=password)
    except OSError as error:  # ssl.SSLError is one, too. Not OpenSSL's own words: here they are about its providers
        with _said_of(certificate_key):
            read_certificates(own.certificate)
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            words = f"the key in {of_key} is not that of the certificate in {of_certificate}"
        elif isinstance(error, ssl.SSLError) and error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            words = f"the certificate in {of_certificate} has a key or a digest that is too weak"
        elif own.password is not None:
            words = f"no key can be read from {of_key}: it is not PEM, or {password_key} holds another password"
        else:
            words = f"no key can be read from {of_key}: it is not PEM, or it is not there"
        raise ConfigError(words) from None


def _password(file: Path | None, of_key: str, setting: str) -> Callable[[], str]:
    """Return what OpenSSL calls when the key is encrypted; without it, it would ask a terminal."""
    if file is None:

        def none() -> str:
            raise ConfigError(f"the key in {of_key} is encrypted: set {setting}")

        return none
    try:
        password = file.read_text(encoding="utf-8-sig").rstrip("\r\n")  # some editors begin with a mark
    except OSError as error:
        raise ConfigError(f"cannot read {file} ({setting}): {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} ({setting}) is no text in UTF-8") from None
    if len(password.encode()) > 1024:  # OpenSSL's PEM_BUFSIZE
        raise ConfigError(f"{file} ({setting}) holds more than the 1024 bytes that a key's password has at most")
    return lambda: password


def _first_byte(file: Path, named: str) -> None:
    """See that a file can be read; OpenSSL's error would not say which one cannot."""
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise ConfigError(f"cannot read {named}: {error.strerror}") from None
