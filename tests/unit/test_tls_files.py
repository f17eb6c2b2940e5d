"""Certificate files: what stands in them, how long it is good for, and how new ones are taken."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certified import Authority, encrypted
from m3node.errors import ConfigError
from m3node.settings import Destination, ListenerSettings, ListenerTls, Settings, WebSettings
from m3node.tls.certificates import fingerprint, read_certificate, read_certificates
from m3node.tls.in_use import certificates_in_use
from m3node.tls.reloading import AGAIN_SECONDS, Reloading

KEY = ec.generate_private_key(ec.SECP256R1())
DAY = 86_400.0


def signed(common_name: str, begins: datetime, ends: datetime) -> x509.Certificate:
    """A certificate that signs itself."""
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Hospital"),
            *([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(KEY, hashes.SHA256())
    )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@given(
    name=st.text(st.characters(categories=["L", "N", "P"]), max_size=16),
    begins=st.datetimes(datetime(1951, 1, 1), datetime(2040, 1, 1)),
    days=st.integers(1, 30_000),
)
def test_what_is_read_of_a_certificate_is_what_stands_in_it(
    folder: Path, name: str, begins: datetime, days: int
) -> None:
    begins = begins.replace(microsecond=0, tzinfo=UTC)
    made = signed(name, begins, begins + timedelta(days=days))
    file = folder / "made.pem"
    file.write_bytes(b"Subject: what openssl x509 -text prints\n" + pem(made))
    view = read_certificate(file, "listener.tls.certificate_file")
    assert view.subject_cn == name
    assert view.not_before == begins.timestamp()
    assert view.not_after == begins.timestamp() + days * DAY
    assert view.fingerprint == made.fingerprint(hashes.SHA256()).hex()
    assert (view.name, view.path) == ("listener.tls.certificate_file", file)


WHOLE = signed("node", datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)).public_bytes(
    serialization.Encoding.DER
)


@given(
    length=st.integers(0, len(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 8), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_certificate_is_called_so_and_nothing_else_happens(
    folder: Path, length: int, changes: list[tuple[int, int]]
) -> None:
    der = bytearray(WHOLE)
    for position, value in changes:
        der[position] = value
    file = folder / "damaged.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(bytes(der[:length])))
    try:
        views = read_certificates(file)
    except ConfigError as error:
        said = str(error)
    else:
        said = f"{file} holds {len(views)}"
        assert views[0].subject_cn.isprintable()
    assert str(file) in said


def test_the_fingerprint_is_what_openssl_prints(folder: Path, program: Callable[[str], str]) -> None:
    authority = Authority(folder / "openssl")
    node = authority.issue("node")
    said = subprocess.run(
        [program("openssl"), "x509", "-in", str(node.certificate), "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    shown = said.partition("=")[2].strip()
    caller = {"ae_title": "CT1", "certificate_sha256": [shown]}
    tls = ListenerTls(certificate_file=node.certificate, key_file=node.key, ca_file=authority.file)
    settings = ListenerSettings.model_validate({"callers": [caller], "tls": tls})
    assert settings.callers[0].certificate_sha256 == (fingerprint(node.der),)
    assert read_certificate(node.certificate).fingerprint == fingerprint(node.der)


def settings_with(folder: Path, name: str, ca: bytes, own: bytes) -> Settings:
    (folder / f"{name}.ca").write_bytes(ca)
    (folder / f"{name}.own").write_bytes(own)
    return Settings(
        data_dir=folder / "data",
        listener=ListenerSettings(
            tls=ListenerTls(certificate_file=folder / f"{name}.own", ca_file=folder / "none.pem")
        ),
        destinations=(
            Destination(name="pacs", ae_title="PACS", host="127.0.0.1", tls=True, ca_file=folder / f"{name}.ca"),
        ),
        web=WebSettings(certificate_file=folder / f"{name}.own"),
    )


def test_every_certificate_of_the_settings_is_listed_with_the_days_that_are_left(tmp_path: Path) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    past, near, far = (
        pem(signed("x", datetime(2020, 1, 1, tzinfo=UTC), now + timedelta(days=days))) for days in (-400, 20, 900)
    )
    found = certificates_in_use(settings_with(tmp_path, "a", past + near + far, far + near), now.timestamp())
    assert [(one.setting, one.days_left, one.expires_soon) for one in found] == [
        # Our own ends with the first of its chain; the authority that is over does no harm beside its successors.
        ("listener.tls.certificate_file", 20.0, True),
        ("listener.tls.ca_file", None, False),
        ("destinations.pacs.ca_file", 20.0, True),
        ("web.certificate_file", 20.0, True),
    ]
    assert "No such file" in found[1].error
    found = certificates_in_use(settings_with(tmp_path, "b", past, far), now.timestamp())
    assert [one.days_left for one in found if not one.error] == [900.0, -400.0, 900.0]
    assert [one.expires_soon for one in found] == [False, False, True, False]


def test_a_certificate_that_was_renewed_without_its_key_is_listed_as_unfit(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    old, new = authority.issue("old"), authority.issue("new")
    key = encrypted(new.key, "secret")
    password = tmp_path / "password"
    password.write_text("secret")
    tls = ListenerTls(
        certificate_file=new.certificate, key_file=key, key_password_file=password, ca_file=authority.file
    )
    pacs = Destination(
        name="pacs",
        ae_title="PACS",
        host="127.0.0.1",
        tls=True,
        client_certificate_file=new.certificate,
        client_key_file=old.key,
    )
    settings = Settings(data_dir=tmp_path, listener=ListenerSettings(tls=tls), destinations=(pacs,))
    assert {one.setting: one.unfit for one in certificates_in_use(settings)} == {
        "listener.tls.certificate_file": "",
        "listener.tls.ca_file": "",
        "destinations.pacs.client_certificate_file": (
            f"the key in {old.key} (destinations.pacs.client_key_file) is not that of the certificate in "
            f"{new.certificate} (destinations.pacs.client_certificate_file)"
        ),
    }
    password.write_text("another")
    assert "holds another password" in certificates_in_use(settings)[0].unfit
    # What vanished, or may not be read, ends the next start, and is to be known before.
    password.unlink()
    assert f"cannot read {password} (listener.tls.key_password_file): No such file" in words_on_the_listener(settings)
    key.unlink()
    assert f"cannot read {key} (listener.tls.key_file): No such file" in words_on_the_listener(settings)


def words_on_the_listener(settings: Settings) -> str:
    return certificates_in_use(settings)[0].unfit


def words_of(file: Path) -> str:
    text = file.read_text()
    if "broken" in text:
        raise ConfigError(f"{file.name} is broken")
    return text


def test_files_are_read_once_and_anew_when_they_change(tmp_path: Path) -> None:
    file, made = tmp_path / "a.pem", []

    def make() -> str:
        made.append(words_of(file))
        return made[-1]

    file.write_text("old")
    reloading = Reloading(make, [file])
    assert [reloading.current() for _ in range(3)] == ["old"] * 3
    assert made == ["old"]
    renewed = tmp_path / "b.pem"
    renewed.write_text("new")
    os.utime(renewed, ns=(0, file.stat().st_mtime_ns))  # as old as the other, as `cp -p` leaves it
    renewed.replace(file)
    assert reloading.current() == "new"
    assert reloading.trouble == ""


def test_broken_files_leave_what_was_there_and_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.pem"
    file.write_text("old")
    reloading = Reloading(lambda: words_of(file), [file])
    reloading.current()
    for length in range(3):
        file.write_text("broken" + " " * length)
        assert reloading.current() == "old"
        assert reloading.trouble == "a.pem is broken"
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said == ["a.pem is broken; what was read before stays in use"]
    file.write_text("new again")
    assert reloading.current() == "new again"
    assert reloading.trouble == ""


def test_files_that_never_could_be_used_are_an_error_until_they_can(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.write_text("broken")
    reloading = Reloading(lambda: words_of(file), [file])
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"a\.pem is broken"):
            reloading.current()
    file.write_text("whole")
    assert reloading.current() == "whole"


def test_a_file_that_goes_away_leaves_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.write_text("old")

    def make() -> str:
        try:
            return words_of(file)
        except OSError as error:
            raise ConfigError(f"cannot read it: {error.strerror}") from None

    reloading = Reloading(make, [file])
    reloading.current()
    file.unlink()
    assert reloading.current() == "old"
    assert "No such file" in reloading.trouble


def test_what_has_served_for_long_is_made_anew_but_not_over_and_over_from_broken_files(tmp_path: Path) -> None:
    file, tried = tmp_path / "a.pem", []

    def make() -> str:
        tried.append(file)
        return words_of(file)

    file.write_text("whole")
    reloading = Reloading(make, [file], lambda: 0.0, worn=lambda _: True)
    assert [reloading.current() for _ in range(3)] == ["whole"] * 3
    assert len(tried) == 3
    file.write_text("broken")
    attempts = len(tried)
    for _ in range(3):
        assert reloading.current() == "whole"
    assert len(tried) == attempts + 1


def test_what_was_the_systems_trouble_is_over_without_a_change_of_the_files(tmp_path: Path) -> None:
    file, now, ills = tmp_path / "a.pem", [0.0], [ConfigError("too many open files"), None, None]
    file.write_text("whole")

    def make() -> str:
        ill = ills.pop(0)
        if ill is not None:
            raise ill
        return words_of(file)

    reloading = Reloading(make, [file], lambda: now[0])
    for now[0] in (0.0, AGAIN_SECONDS - 1):
        with pytest.raises(ConfigError, match="too many"):
            reloading.current()
    now[0] = AGAIN_SECONDS
    assert reloading.current() == "whole"
    assert reloading.trouble == ""
    now[0] = 10 * AGAIN_SECONDS
    assert reloading.current() == "whole"
    assert len(ills) == 1  # what is right is not read again
