"""Certificate files as people bring them: what OpenSSL takes is read, and of the rest it is said what it is."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from m3node.errors import ConfigError
from m3node.settings import ListenerTls
from m3node.tls.certificates import read_certificate, read_certificates
from m3node.tls.listening import listener_context

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def signed(common_name: str) -> x509.Certificate:
    """A certificate that signs itself."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    dated = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    return dated.serial_number(x509.random_serial_number()).sign(KEY, hashes.SHA256())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def pems(folder: Path) -> dict[str, bytes]:
    """Files as people bring them, made of two certificates and the key of the first."""
    first, second = (signed(name).public_bytes(serialization.Encoding.PEM) for name in ("first", "second"))
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "one": first,
        "several": first + second,
        "the key first": key + first + second,
        "a byte order mark": b"\xef\xbb\xbf" + first,
        "carriage returns": first.replace(b"\n", b"\r\n"),
        "carriage returns alone": first.replace(b"\n", b"\r"),
        "spaces behind the lines": first.replace(b"\n", b"  \n"),
        "spaces before the lines": b"  " + first.replace(b"\n", b"\n  "),
        "words between": "subject: Gerät\n# -----BEGIN CERTIFICATE-----\n".encode() + first + b"issuer: CA\n" + second,
        "no end of the last line": first.rstrip(),
        "an end within a line": first.replace(b"\n-----END", b"-----END"),
        "an end that is missing": first.partition(b"-----END")[0],
        "the second damaged": first + second.replace(b"\nMII", b"\nXII", 1),
        "nothing": b"",
        "a key only": key,
        "UTF-16": first.decode().encode("utf-16"),
        "DER": ssl.PEM_cert_to_DER_cert(first.decode()).ljust(4000, b"\0"),
        "zeros": bytes(1000),
    }


GOOD = {
    "one": 1,
    "several": 2,
    "the key first": 2,
    "a byte order mark": 1,
    "carriage returns": 1,
    "spaces behind the lines": 1,
    "words between": 2,
    "no end of the last line": 1,
}


def test_a_file_holds_for_us_what_it_holds_for_openssl(folder: Path, pems: dict[str, bytes]) -> None:
    for kind, text in pems.items():
        file = folder / "odd.pem"
        file.write_bytes(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if kind in GOOD:
            context.load_verify_locations(file)
            assert context.cert_store_stats()["x509"] == GOOD[kind], kind
            assert [view.subject_cn for view in read_certificates(file)] == ["first", "second"][: GOOD[kind]], kind
        else:
            with pytest.raises(ssl.SSLError):
                context.load_verify_locations(file)
            with pytest.raises(ConfigError, match=r"holds no certificate in PEM|certificate 2 is damaged") as said:
                read_certificates(file)
            assert ("openssl x509 -inform DER" in str(said.value)) == (kind == "DER")


def test_a_certificate_that_is_damaged_is_named_by_its_place_and_setting(folder: Path, pems: dict[str, bytes]) -> None:
    for kind, why in (
        ("the second damaged", "certificate 2 is damaged"),
        ("DER", "holds no certificate in PEM (it is binary"),
    ):
        file = folder / "chain.pem"
        file.write_bytes(pems[kind])
        key = folder / "chain.key"
        key.write_bytes(pems["a key only"])
        tls = ListenerTls(certificate_file=file, key_file=key, client_certificates="none")
        with pytest.raises(ConfigError) as said:
            listener_context(tls)
        assert why in str(said.value)
        assert str(said.value).endswith("(listener.tls.certificate_file)")
        file.write_bytes(pems["one"])
        authorities = folder / "authorities.pem"
        authorities.write_bytes(pems[kind])
        with pytest.raises(ConfigError) as said:
            listener_context(tls.model_copy(update={"client_certificates": "required", "ca_file": authorities}))
        assert why in str(said.value)
        assert str(said.value).endswith("(listener.tls.ca_file)")


def test_a_folder_is_no_certificate(folder: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        read_certificate(folder)


def test_openssls_own_form_of_a_certificate_is_called_so(
    folder: Path, pems: dict[str, bytes], program: Callable[[str], str]
) -> None:
    plain, trusted = folder / "plain.pem", folder / "trusted.pem"
    plain.write_bytes(pems["one"])
    subprocess.run(
        [program("openssl"), "x509", "-in", str(plain), "-addtrust", "serverAuth", "-out", str(trusted)], check=True
    )
    with pytest.raises(ConfigError, match=r"certificate 1 is in a form of OpenSSL's own \(TRUSTED CERTIFICATE\)"):
        read_certificate(trusted)


@pytest.mark.filterwarnings("error")
def test_an_authority_that_numbers_its_certificates_below_one_is_read_without_a_word(
    folder: Path, program: Callable[[str], str]
) -> None:
    made = signed("first")
    der = bytearray(made.public_bytes(serialization.Encoding.DER))
    number = made.serial_number.to_bytes((made.serial_number.bit_length() + 8) // 8)
    place = der.index(number)
    der[place : place + len(number)] = bytes([0x90]) + number[1:]
    file = folder / "below.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)))
    assert read_certificate(file).subject_cn == "first"


def test_who_has_no_certificates_does_not_wait_for_the_library_that_reads_them() -> None:
    code = "import sys, m3node.cli.main; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
