"""``m3node echo`` and ``m3node send`` over TLS: by flags, or as the settings call a destination."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from tls_peers import speaking

from certified import Authority, Shown, encrypted
from fake_pacs import FakePacs, fake_pacs
from m3node.cli.main import main
from m3node.tls.contexts import fingerprint
from quick_series import quick_series


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def server(authority: Authority) -> Shown:
    return authority.issue("pacs")


def peer(pacs: FakePacs) -> str:
    return f"PACS@127.0.0.1:{pacs.port}"


def test_a_peer_over_tls_answers_whom_the_flags_trust_and_who_shows_a_certificate(
    authority: Authority, server: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = authority.issue("ours")
    (tmp_path / "password").write_text("s3cret\n")
    shown = ["--certificate", str(ours.certificate), "--key", str(encrypted(ours.key, "s3cret"))]
    with fake_pacs(tls=speaking(server, callers=authority)) as pacs:
        trusting = ["echo", peer(pacs), "--ca-file", str(authority.file)]
        assert main(trusting) == 1
        assert "it wants a certificate of ours" in capsys.readouterr().err
        assert main([*trusting, *shown]) == 2
        assert "is encrypted" in capsys.readouterr().err
        assert main([*trusting, *shown, "--key-password-file", str(tmp_path / "password")]) == 0
    assert f"{peer(pacs)} answers" in capsys.readouterr().out


def test_a_pin_alone_is_enough_and_is_read_as_openssl_prints_it(
    authority: Authority, server: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = fingerprint(server.der).upper()
    printed = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    with fake_pacs(tls=speaking(server)) as pacs:
        assert main(["echo", peer(pacs), "--pin", printed]) == 0
        assert main(["echo", peer(pacs), "--pin", "0" * 64]) == 1
    assert f"its SHA-256 is {fingerprint(server.der)}" in capsys.readouterr().err


def test_without_flags_the_systems_authorities_and_the_hosts_name_count(
    authority: Authority, server: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_pacs(tls=speaking(server)) as pacs:
        assert main(["echo", peer(pacs), "--tls"]) == 1
        assert "is not signed by an authority of this system" in capsys.readouterr().err
        trusting = ["echo", peer(pacs), "--ca-file", str(authority.file)]
        assert main([*trusting, "--tls-name", "elsewhere"]) == 1
        assert "the name in its certificate is not elsewhere" in capsys.readouterr().err
        assert main([*trusting, "--tls-name", "localhost"]) == 0


def settings(folder: Path, pacs: FakePacs, *more: str) -> str:
    config = folder / "m3node.toml"
    lines = [
        "[[destinations]]",
        'name = "pacs"',
        'ae_title = "PACS"',
        'host = "127.0.0.1"',
        f"port = {pacs.port}",
        *more,
    ]
    config.write_text("\n".join(['[listener]\nae_title = "NODE"', *lines, ""]))
    return str(config)


def test_a_destination_of_the_settings_is_called_as_the_node_calls_it(
    authority: Authority, server: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_series(tmp_path / "series", 1)
    classes = [str(pydicom.dcmread(next((tmp_path / "series").iterdir())).SOPClassUID)]
    with fake_pacs(tls=speaking(server), require_calling=["NODE"], classes=classes) as pacs:
        config = settings(tmp_path, pacs, "tls = true", f'ca_file = "{authority.file}"')
        assert main(["echo", "pacs", "--config", config]) == 0
        assert main(["send", str(tmp_path / "series"), "pacs", "--config", config]) == 0
        assert f"12 of 12 objects stored by {peer(pacs)}" in capsys.readouterr().out
        assert main(["echo", "pacs", "--config", config, "--calling", "OTHER"]) == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["archive"], "no destination is called archive (there is: pacs, web)"),
        (["web"], "destination web is a DICOMweb service"),
        (["pacs", "--tls"], "destination pacs has its TLS in the settings"),
        (["PACS@127.0.0.1:104", "--key", "ours.key"], "go with --certificate"),
        (["PACS@127.0.0.1:104", "--ca-file", "gone.pem"], "cannot read gone.pem"),
    ],
)
def test_what_cannot_be_meant_is_said(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_pacs() as pacs:
        config = settings(tmp_path, pacs, "[[destinations]]", 'name = "web"', 'url = "https://127.0.0.1/dicom-web"')
        assert main(["echo", *flags, "--config", config]) == 2
    assert says in capsys.readouterr().err


def test_a_pin_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["echo", "PACS@127.0.0.1:104", "--pin", "abc"])
    assert caught.value.code == 2
    assert "is no SHA-256 of a certificate" in capsys.readouterr().err
