"""What stands in a certificate file: whose it is, until when, and its fingerprint.

Python's ``ssl`` shows certificates of connections, not of files.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m3node.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

_BLOCK = re.compile(
    rb"^-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----[ \t]*\r?\n(.*?)^-----END \1-----", re.DOTALL | re.MULTILINE
)
"""A certificate as OpenSSL finds it: its marks begin their lines, and text may stand between."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEQUENCE = b"\x30"
"""How every certificate in DER begins (X.690), and PKCS #7 and #12, too."""

_LARGEST = 16 * 1024 * 1024
"""Bytes of a file; the largest bundles have less than one."""


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A certificate.

    Attributes
    ----------
    name : str
        The setting that names its file, where there is one.
    path : Path
        Its file.
    subject_cn : str
        The subject's common name; empty where it has none.
    not_before, not_after : float
        From when to when it is valid, in seconds of Unix time.
    fingerprint : str
        SHA-256 of its DER, hexadecimal, lower case.
    """

    name: str
    path: Path
    subject_cn: str
    not_before: float
    not_after: float
    fingerprint: str


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate as settings hold it: hexadecimal, lower case."""
    return hashlib.sha256(der).hexdigest()


def peer_fingerprint(connection: ssl.SSLSocket | ssl.SSLObject) -> str:
    """Return the fingerprint of the certificate that a peer showed; empty where it showed none."""
    der = connection.getpeercert(binary_form=True)
    return fingerprint(der) if der else ""


def read_certificate(path: Path, name: str = "") -> CertificateView:
    """Read the first certificate of a PEM file: our own, where others follow.

    Raises
    ------
    ConfigError
        The file cannot be read or holds none.
    """
    return read_certificates(path, name)[0]


def read_certificates(path: Path, name: str = "") -> tuple[CertificateView, ...]:
    """Read all certificates of a PEM file; at least one.

    Raises
    ------
    ConfigError
        The file cannot be read, holds none, or one that is damaged.
    """
    return tuple(_view(name, path, number, kind, pem) for number, (kind, pem) in enumerate(_blocks(path), start=1))


def look_for_certificate(path: Path) -> None:
    """See that a PEM file holds a certificate, whatever stands in it.

    Raises
    ------
    ConfigError
        The file cannot be read, or holds none.
    """
    _blocks(path)


def _blocks(path: Path) -> list[tuple[bytes, bytes]]:
    """Return kind and PEM of each certificate in a file."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST).removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    blocks = [(found[1], found[0]) for found in _BLOCK.finditer(text)]
    if not blocks:
        binary = " (it is binary: openssl x509 -inform DER writes a certificate as PEM)"
        raise ConfigError(f"{path} holds no certificate in PEM{binary if text.startswith(_SEQUENCE) else ''}")
    return blocks


def _view(name: str, path: Path, number: int, kind: bytes, pem: bytes) -> CertificateView:
    from cryptography import x509  # noqa: PLC0415 - for whoever has certificates
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    if kind.startswith(b"TRUSTED"):
        raise ConfigError(
            f"{path}: certificate {number} is in a form of OpenSSL's own (TRUSTED CERTIFICATE): openssl x509 writes it "
            "as it is wanted"
        )
    with warnings.catch_warnings():
        # It warns of what authorities have done against the standard; OpenSSL decides on that.
        warnings.filterwarnings("ignore", module=re.escape(__name__))
        try:
            read = x509.load_pem_x509_certificate(pem)
            begins, ends = read.not_valid_before_utc.timestamp(), read.not_valid_after_utc.timestamp()
        except ValueError:
            raise ConfigError(f"{path}: certificate {number} is damaged") from None
        return CertificateView(
            name, path, _common_name(read), begins, ends, fingerprint(read.public_bytes(Encoding.DER))
        )


def _common_name(certificate: x509.Certificate) -> str:
    from cryptography.x509 import NameOID  # noqa: PLC0415

    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:  # letters that its encoding has not
        return ""
    name = str(names[-1].value) if names else ""
    return "".join(character if character.isprintable() else "?" for character in name)
