"""The listener's context over the years: renewed with its files, and not grown."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from certified import Authority, Shown, caller, encrypted, meet
from m3node.settings import ListenerTls
from m3node.tls.listening import reloading_listener_context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Shown:
    return authority.issue("node")


@pytest.fixture(scope="module")
def modality(authority: Authority) -> Shown:
    return authority.issue("modality")


def test_sessions_of_tls_1_2_do_not_pile_up_and_nobody_is_told(
    authority: Authority,
    node: Shown,
    modality: Shown,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("m3node.tls.listening.MOST_SESSIONS", 3)
    caplog.set_level(logging.INFO)
    old = caller(authority.file, modality)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    contexts = reloading_listener_context(
        ListenerTls(certificate_file=node.certificate, key_file=node.key, ca_file=authority.file)
    )
    kept = []
    for _ in range(8):
        serving = contexts.current()
        for side in meet(serving, old):
            with suppress(ssl.SSLError):
                side.unwrap()  # what ends well is kept
        kept.append(serving.session_stats()["number"])
    assert kept == [1, 2, 3, 1, 2, 3, 1, 2]
    assert caplog.records == []


def test_callers_of_a_new_authority_come_in_when_it_is_in_ca_file(
    authority: Authority, node: Shown, modality: Shown, tmp_path: Path
) -> None:
    ca_file, coming = tmp_path / "ca.pem", Authority(tmp_path, "coming")
    ca_file.write_bytes(authority.file.read_bytes())
    contexts = reloading_listener_context(
        ListenerTls(certificate_file=node.certificate, key_file=node.key, ca_file=ca_file)
    )
    before, after = caller(authority.file, modality), caller(authority.file, coming.issue("modality"))
    meet(contexts.current(), before)
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(contexts.current(), after)
    ca_file.write_bytes(authority.file.read_bytes() + coming.file.read_bytes())
    meet(contexts.current(), before)
    meet(contexts.current(), after)
    ca_file.write_bytes(coming.file.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(contexts.current(), before)


def test_a_password_that_is_put_right_is_read_again(node: Shown, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("right")
    tls = ListenerTls(
        certificate_file=node.certificate,
        key_file=encrypted(node.key, "right"),
        key_password_file=password,
        client_certificates="none",
    )
    contexts = reloading_listener_context(tls)
    first = contexts.current()
    password.write_text("wrong")
    assert contexts.current() is first
    assert "holds another password" in contexts.trouble
    password.write_text("right")
    assert contexts.current() is not first
    assert contexts.trouble == ""
