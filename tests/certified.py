"""Certificates for tests: an authority, and what it signs, in files as a hospital has them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Shown:
    """A certificate with its key, in files."""

    certificate: Path
    key: Path
    der: bytes


class Authority:
    """An authority of our own; its certificate lies in ``file``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *, days: float = 90.0) -> Shown:
        """Sign a certificate for 127.0.0.1 that is good for so many days, or has been over for so many below zero."""
        leaf = self._ca.issue_cert(
            "127.0.0.1",
            "localhost",
            common_name=name,
            not_before=NOW - timedelta(days=1 - min(days, 0) * 2),
            not_after=NOW + timedelta(days=days),
        )
        shown = Shown(
            self._folder / f"{name}.pem",
            self._folder / f"{name}.key",
            ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode()),
        )
        shown.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        shown.key.write_bytes(leaf.private_key_pem.bytes())
        shown.key.chmod(0o600)
        return shown

    def issue_with_short_key(self, name: str) -> Shown:
        """Sign a certificate for an RSA key of 1024 bits."""
        key = rsa.generate_private_key(65537, 1024)
        authority = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(authority, ec.EllipticCurvePrivateKey)
        signer = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(signer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
            .sign(authority, hashes.SHA256())
        )
        shown = Shown(
            self._folder / f"{name}.pem",
            self._folder / f"{name}.key",
            certificate.public_bytes(serialization.Encoding.DER),
        )
        shown.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        shown.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return shown


def made(folder: Path, names: list[str], signer: Shown | None = None, *, ends: float = 1.0) -> Shown:
    """A certificate of any names and any end in days, signed by itself or by another one that was made so."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:4] + str(signer is None))])
    issuer, signing = own, key
    if signer is not None:
        issuer = x509.load_der_x509_certificate(signer.der).subject
        loaded = serialization.load_pem_private_key(signer.key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    begins, over = (datetime.now(UTC) + timedelta(days=days) for days in (-9, ends))
    built = x509.CertificateBuilder(issuer, own, key.public_key(), x509.random_serial_number(), begins, over)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    signed = built.add_extension(alternatives, critical=False).add_extension(
        x509.BasicConstraints(ca=signer is None, path_length=None), critical=True
    )
    certificate = signed.sign(signing, hashes.SHA256())
    number = len(list(folder.glob("made-*")))
    shown = Shown(
        folder / f"made-{number}.pem",
        folder / f"made-{number}.key",
        certificate.public_bytes(serialization.Encoding.DER),
    )
    shown.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    shown.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return shown


def encrypted(key: Path, password: str) -> Path:
    """Write a copy of a key that asks for a password."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    copy = key.with_suffix(".encrypted")
    copy.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
    )
    return copy


def caller(ca_file: Path | None = None, shown: Shown | None = None) -> ssl.SSLContext:
    """A caller's context that is not made by the code under test; it trusts anybody without ``ca_file``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cafile=str(ca_file))
    if shown is not None:
        context.load_cert_chain(str(shown.certificate), str(shown.key))
    return context


def meet(serving: ssl.SSLContext, calling: ssl.SSLContext, name: str = "127.0.0.1") -> tuple[ssl.SSLObject, ...]:
    """Let both shake hands in memory; raise what the first of them raises. Returns server's and client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        serving.wrap_bio(to_server, to_client, server_side=True),
        calling.wrap_bio(to_client, to_server, server_hostname=name),
    )
    waiting = list(sides[::-1])
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    return sides
