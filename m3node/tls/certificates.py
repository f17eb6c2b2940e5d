"""What stands in a certificate file: whose it is, until when, and its fingerprint.

Python's ``ssl`` shows certificates of connections, not of files; the few fields that are needed are read from the DER
(RFC 5280 4.1) here.
"""

from __future__ import annotations

import binascii
import calendar
import hashlib
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m3node.errors import ConfigError

_PEM = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----\s(.*?)-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)
_LARGEST = 16 * 1024 * 1024
"""Bytes of a file; the largest bundles have less than one."""

_SEQUENCE, _SET, _OID, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x31, 0x06, 0x17, 0x18, 0xA0
_COMMON_NAME = b"\x55\x04\x03"
_TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
"""Kinds of string (X.680), and how Python calls their encoding."""


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
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    views = []
    for number, block in enumerate(_PEM.findall(text), start=1):
        try:
            views.append(_view(name, path, binascii.a2b_base64(block)))
        except (ValueError, IndexError, LookupError):
            raise ConfigError(f"{path}: certificate {number} is damaged") from None
    if not views:
        raise ConfigError(f"{path} holds no certificate in PEM")
    return tuple(views)


def _view(name: str, path: Path, encoded: bytes) -> CertificateView:
    whole = _element(encoded, 0)
    der = encoded[: whole[3]]  # OpenSSL's TRUSTED CERTIFICATE has its own data behind it
    to_be_signed, *_ = _children(der, whole)
    fields = [field for field in _children(der, to_be_signed) if field[0] != _VERSION]
    validity, subject = fields[3], fields[4]
    begins, ends = (_time(kind, der[begin:end]) for kind, _, begin, end in _children(der, validity))
    return CertificateView(name, path, _common_name(der, subject), begins, ends, fingerprint(der))


_Element = tuple[int, int, int, int]
"""Tag, where it begins, where its value begins, where it ends."""


def _element(der: bytes, begin: int) -> _Element:
    tag, length, value = der[begin], der[begin + 1], begin + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[value : value + count], "big")
        value += count
    if value + length > len(der):
        raise ValueError("an element is longer than what holds it")
    return tag, begin, value, value + length


def _children(der: bytes, parent: _Element) -> Iterator[_Element]:
    _, _, position, end = parent
    while position < end:
        child = _element(der, position)
        yield child
        position = child[3]


def _time(kind: int, value: bytes) -> float:
    text = value.decode("ascii")
    if kind == _UTC_TIME:
        # RFC 5280 4.1.2.5.1: two digits are of 1950 to 2049.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("neither of the two kinds of time")
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))


def _common_name(der: bytes, subject: _Element) -> str:
    name = ""
    for relative in _children(der, subject):
        for attribute in _children(der, relative):
            oid, value = list(_children(der, attribute))[:2]
            if der[oid[2] : oid[3]] == _COMMON_NAME:
                name = der[value[2] : value[3]].decode(_TEXT.get(value[0], "latin-1"), errors="replace")
    return "".join(character if character.isprintable() else "?" for character in name)
