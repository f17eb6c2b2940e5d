"""docs/tls.md: its commands make certificates that work, its settings are settings, its reasons are those given."""

from __future__ import annotations

import re
import ssl
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from m3node.delivery import transport
from m3node.settings import Settings
from m3node.tls import calling, certificates, contexts, reasons
from m3node.tls.contexts import fingerprint, server_context

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "tls.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_commands_make_an_authority_and_a_certificate_that_it_vouches_for(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    program("openssl")
    said = subprocess.run(
        ["bash", "-e"], input="\n".join(blocks("sh")), cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert (tmp_path / "node.key").stat().st_mode & 0o077 == 0
    shown = re.search(r"Fingerprint=(.*)", said)
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "node.pem").read_text())
    assert shown is not None
    assert shown[1].replace(":", "").lower() == fingerprint(der)
    serving = server_context(
        tmp_path / "node.pem",
        tmp_path / "node.key",
        None,
        ca_file=tmp_path / "authority.pem",
        client_certificates="required",
        minimum="1.2",
    )
    calling = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    calling.verify_flags |= ssl.VERIFY_X509_STRICT
    calling.load_cert_chain(tmp_path / "node.pem", tmp_path / "node.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = calling.wrap_bio(to_client, to_server, server_hostname="m3node.hospital.example")
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    server.do_handshake()
    assert server.getpeercert(binary_form=True) == der


@pytest.mark.parametrize("toml", blocks("toml"))
def test_the_settings_are_settings(toml: str) -> None:
    values = tomllib.loads(toml)
    listener = values.get("listener", {})
    if "callers" in listener and "tls" not in listener:
        listener["tls"] = {"certificate_file": "node.pem", "ca_file": "authority.pem"}
    Settings.model_validate(values)


def test_the_reasons_are_those_that_are_given() -> None:
    table = TEXT.partition("| … | what it means |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| (it[s ].*?|what .*?) \|", table, flags=re.MULTILINE)
    given = {*reasons._OF_CERTIFICATES.values(), *reasons._OF_PROTOCOL.values(), reasons.why_no_tls(TimeoutError())}
    assert len(named) == 10
    assert [reason for reason in named if not any(words.startswith(reason.partition(",")[0]) for words in given)] == []


def test_the_reasons_of_destinations_are_those_that_are_given() -> None:
    table = TEXT.partition("When the node calls")[2].partition("|---|---|---|\n")[2].partition("\n\n")[0]
    named = [reason for line in table.splitlines() for reason in line.split(" | ")[0].removeprefix("| ").split("; ")]
    source = "".join(
        Path(str(module.__file__)).read_text() for module in (calling, certificates, contexts, reasons, transport)
    )
    assert len(named) == 21
    assert [reason for reason in named if re.split(r"…|:", reason.lstrip("… "))[0].strip(" (") not in source] == []
