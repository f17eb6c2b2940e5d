"""TLS is spoken as PS3.15 B.12 has it, and files that cannot be used are named with their setting."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from certified import Authority, Shown, caller, encrypted, meet
from m3node.errors import ConfigError
from m3node.tls.calling import Terms, called_name
from m3node.tls.contexts import (
    TLS12_SUITES,
    TLS13_SUITES,
    PinError,
    check_pins,
    client_context,
    fingerprint,
    server_context,
)
from m3node.tls.reasons import why_no_tls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Shown:
    return authority.issue("node")


@pytest.fixture(scope="module")
def modality(authority: Authority) -> Shown:
    return authority.issue("modality")


def server(shown: Shown, **changes: Any) -> ssl.SSLContext:
    values = {"ca_file": None, "client_certificates": "none", "minimum": "1.2", **changes}
    return server_context(shown.certificate, shown.key, None, **values)


def client(**changes: Any) -> ssl.SSLContext:
    values = {
        "ca_file": None,
        "client_certificate_file": None,
        "client_key_file": None,
        "client_key_password_file": None,
        "pins": (),
        "minimum": "1.2",
        **changes,
    }
    return client_context(**values)


def test_two_contexts_of_ours_meet_in_tls_1_3(authority: Authority, node: Shown) -> None:
    ours, _ = meet(server(node), client(ca_file=authority.file))
    assert ours.version() == "TLSv1.3"
    assert ours.cipher()[0] in TLS13_SUITES


def test_a_caller_that_has_1_2_only_is_met_in_it_unless_1_3_is_asked_for(authority: Authority, node: Shown) -> None:
    old = caller(authority.file)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = meet(server(node), old)
    assert ours.version() == "TLSv1.2"
    assert ours.cipher()[0] in TLS12_SUITES
    assert ours.compression() is None
    with pytest.raises(ssl.SSLError) as refused:
        meet(server(node, minimum="1.3"), old)
    assert why_no_tls(refused.value) == "it speaks no version of TLS that is allowed here"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_versions_are_refused(node: Shown, version: ssl.TLSVersion) -> None:
    old = caller()
    old.minimum_version, old.maximum_version = version, version
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError) as refused:
        meet(server(node), old)
    assert why_no_tls(refused.value) == "it speaks no version of TLS that is allowed here"


def test_of_tls_1_2_only_ephemeral_keys_and_authenticated_ciphers_are_spoken(node: Shown) -> None:
    for context in (server(node), client()):
        suites = context.get_ciphers()
        assert {suite["name"] for suite in suites} == {*TLS12_SUITES, *TLS13_SUITES}
        assert all(suite["aead"] for suite in suites)
        assert {suite["kea"] for suite in suites if suite["protocol"] == "TLSv1.2"} == {"kx-ecdhe"}


def test_nothing_is_compressed_and_no_handshake_is_begun_anew(node: Shown) -> None:
    # Most of them are defaults of some versions of Python and OpenSSL, and of others not.
    for context in (server(node), client()):
        assert ssl.OP_NO_COMPRESSION in context.options
        assert ssl.OP_NO_RENEGOTIATION in context.options
        assert ssl.VERIFY_X509_TRUSTED_FIRST in context.verify_flags
    assert ssl.OP_CIPHER_SERVER_PREFERENCE in server(node).options


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES256-SHA384", "AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384"])
def test_a_caller_that_knows_only_weaker_suites_is_refused(node: Shown, suite: str) -> None:
    weak = caller()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers(suite)
    with pytest.raises(ssl.SSLError) as refused:
        meet(server(node), weak)
    assert why_no_tls(refused.value) == "it knows none of the cipher suites that are allowed here"


def test_the_server_chooses_the_suite(node: Shown) -> None:
    picky = caller()
    picky.maximum_version = ssl.TLSVersion.TLSv1_2
    picky.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    ours, _ = meet(server(node), picky)
    assert ours.cipher()[0] == TLS12_SUITES[0]


def test_a_connection_leaves_no_ticket_to_resume_it(node: Shown) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        calling = caller()
        calling.maximum_version = version
        ours, theirs = meet(server(node), calling)
        ours.write(b"x")
        assert theirs.read(1) == b"x"
        assert theirs.session is None or not theirs.session.has_ticket


def test_callers_show_a_certificate_of_a_known_authority(
    authority: Authority, node: Shown, modality: Shown, tmp_path: Path
) -> None:
    wanting = server(node, ca_file=authority.file, client_certificates="required")
    ours, _ = meet(wanting, caller(authority.file, modality))
    der = ours.getpeercert(binary_form=True)
    assert der == modality.der
    stranger = Authority(tmp_path, "stranger").issue("modality")
    over = authority.issue("over", days=-1)
    for shown, words in (
        (None, "it showed no certificate"),
        (stranger, "its certificate is signed by an authority that is not in ca_file"),
        (over, "its certificate has expired"),
    ):
        with pytest.raises(ssl.SSLError) as refused:
            meet(wanting, caller(authority.file, shown))
        assert why_no_tls(refused.value) == words


def test_an_authority_between_is_enough_without_its_root(tmp_path: Path) -> None:
    # Hospitals hand out the authority that signs; where it is trusted, the root has nothing to say.
    root = trustme.CA()
    between, other = root.create_child_ca(), root.create_child_ca()
    leaf, strange = between.issue_cert("127.0.0.1"), other.issue_cert("127.0.0.1")
    shown = Shown(tmp_path / "leaf.pem", tmp_path / "leaf.key", b"")
    leaf.cert_chain_pems[0].write_to_path(shown.certificate)
    leaf.private_key_pem.write_to_path(shown.key)
    between.cert_pem.write_to_path(tmp_path / "between.pem")
    wanting = server(shown, ca_file=tmp_path / "between.pem", client_certificates="required")
    calling = client(
        ca_file=tmp_path / "between.pem", client_certificate_file=shown.certificate, client_key_file=shown.key
    )
    meet(wanting, calling)
    strange.cert_chain_pems[0].write_to_path(tmp_path / "leaf.pem")
    strange.private_key_pem.write_to_path(tmp_path / "leaf.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(server(shown), calling)


def test_a_key_that_is_too_short_is_refused(authority: Authority, node: Shown, tmp_path: Path) -> None:
    short = authority.issue_with_short_key("short")
    with pytest.raises(ConfigError, match="too weak"):
        server(short)
    lax = caller(authority.file)
    lax.set_ciphers("DEFAULT@SECLEVEL=0")
    lax.load_cert_chain(str(short.certificate), str(short.key))
    with pytest.raises(ssl.SSLError) as refused:
        meet(server(node, ca_file=authority.file, client_certificates="required"), lax)
    assert why_no_tls(refused.value) == "its certificate's key is too weak"


def test_the_systems_authorities_vouch_for_no_caller(authority: Authority, node: Shown) -> None:
    context = server(node, ca_file=authority.file, client_certificates="required")
    assert [ca["subject"] for ca in context.get_ca_certs()] == [
        ca["subject"] for ca in caller(authority.file).get_ca_certs()
    ]
    with pytest.raises(ConfigError, match="ca_file is needed"):
        server(node, client_certificates="required")


def test_a_client_takes_only_a_server_that_its_authority_vouches_for_under_the_name_that_it_called(
    authority: Authority, node: Shown, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    meet(server(node), client(ca_file=authority.file), "localhost")
    for calling, name, words in (
        (client(ca_file=other.file), "127.0.0.1", "its certificate is signed by an authority that is not in ca_file"),
        (client(), "127.0.0.1", "its certificate is signed by an authority that is not in ca_file"),
        (client(ca_file=authority.file), "pacs", "its certificate is of another name than that which was called"),
        (client(ca_file=authority.file), "127.0.0.2", "its certificate does not hold the address that was called"),
    ):
        with pytest.raises(ssl.SSLError) as refused:
            meet(server(node), calling, name)
        assert why_no_tls(refused.value) == words


def test_the_name_in_a_certificate_has_no_zone_and_no_last_dot() -> None:
    named = {"fe80::1%eth0": "fe80::1", "pacs.example.": "pacs.example", "pacs.example": "pacs.example"}
    assert {host: called_name(host, Terms()) for host in named} == named
    assert called_name("192.0.2.1", Terms(name="pacs")) == "pacs"


def test_a_pin_takes_the_one_certificate_whoever_signed_it_and_no_other(authority: Authority, node: Shown) -> None:
    pin = fingerprint(node.der)
    _, theirs = meet(server(node), client(pins=(pin,)), "any name")
    check_pins(theirs, (pin,))
    check_pins(theirs, ())
    _, theirs = meet(server(authority.issue("another")), client(pins=(pin,)))
    with pytest.raises(PinError, match=r"its SHA-256 is [0-9a-f]{64}$"):
        check_pins(theirs, (pin,))


def test_a_pin_beside_an_authority_needs_both(authority: Authority, node: Shown, tmp_path: Path) -> None:
    pins = (fingerprint(node.der),)
    meet(server(node), client(pins=pins, ca_file=authority.file), "any name")
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(server(node), client(pins=pins, ca_file=Authority(tmp_path, "other").file))


def test_a_caller_without_certificate_fits_no_pin(node: Shown) -> None:
    ours, _ = meet(server(node), caller())
    with pytest.raises(PinError, match="showed no certificate"):
        check_pins(ours, ("0" * 64,))


def test_a_client_shows_its_certificate_where_it_is_asked(authority: Authority, node: Shown, modality: Shown) -> None:
    wanting = server(node, ca_file=authority.file, client_certificates="required")
    own = client(ca_file=authority.file, client_certificate_file=modality.certificate, client_key_file=modality.key)
    ours, _ = meet(wanting, own)
    assert ours.getpeercert(binary_form=True) == modality.der


def test_an_encrypted_key_is_opened_by_the_password_in_its_file(node: Shown, tmp_path: Path) -> None:
    key, password = encrypted(node.key, "naïve secret "), tmp_path / "password"
    password.write_text("naïve secret \n", encoding="utf-8")

    def make(password_file: Path | None) -> ssl.SSLContext:
        return server_context(
            node.certificate,
            key,
            password_file,
            ca_file=None,
            client_certificates="none",
            minimum="1.2",
            section="listener.tls",
        )

    meet(make(password), caller())
    password.write_text("naïve secret \r\n", encoding="utf-8-sig")  # as Windows' editor writes it
    meet(make(password), caller())
    with pytest.raises(ConfigError, match=r"is encrypted: set listener\.tls\.key_password_file$"):
        make(None)
    password.write_text("an old secret")
    with pytest.raises(ConfigError, match=r"listener\.tls\.key_password_file holds another password$") as refused:
        make(password)
    assert "an old secret" not in str(refused.value)
    password.write_text("x" * 1025)
    with pytest.raises(ConfigError, match="1024 bytes"):
        make(password)
    with pytest.raises(ConfigError, match="No such file"):
        make(tmp_path / "none")


def test_what_a_file_lacks_is_said_with_its_setting(authority: Authority, node: Shown, modality: Shown) -> None:
    nothing = node.certificate.with_name("nothing.pem")
    empty = node.certificate.with_name("empty.pem")
    empty.write_text("")

    def make(certificate: Path = node.certificate, key: Path | None = node.key, ca: Path = authority.file) -> None:
        server_context(
            certificate,
            key,
            None,
            ca_file=ca,
            client_certificates="required",
            minimum="1.2",
            section="listener.tls",
        )

    make()
    for values, setting, words in (
        ({"certificate": nothing}, "certificate_file", "No such file"),
        ({"certificate": empty}, "certificate_file", "holds no certificate"),
        ({"certificate": node.key}, "certificate_file", "holds no certificate"),
        ({"key": nothing}, "key_file", "No such file"),
        ({"key": empty}, "key_file", "no key can be read"),
        ({"key": modality.key}, "key_file", "is not that of the certificate"),
        ({"key": None}, "certificate_file", "no key can be read"),
        ({"ca": nothing}, "ca_file", "No such file"),
        ({"ca": empty}, "ca_file", "holds no certificate"),
    ):
        with pytest.raises(ConfigError, match=words) as refused:
            make(**values)
        assert f"(listener.tls.{setting})" in str(refused.value)
