"""``m3node status`` ends with what of the node's health wants a look, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certified import Authority
from ledgers import opened_ledger
from m3node.cli import main
from m3node.settings import Settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a node that is down, whose certificate is about to expire."""
    shown = Authority(tmp_path).issue("node", days=10)
    file = tmp_path / "m3node.toml"
    file.write_text(
        f'data_dir = "{tmp_path / "data"}"\n[listener.tls]\ncertificate_file = "{shown.certificate}"\n'
        f'key_file = "{shown.key}"\nclient_certificates = "none"\n[disk]\nwarn_free_mb = 0.0\nrefuse_free_mb = 0.0\n'
    )
    with opened_ledger(Settings(data_dir=tmp_path / "data")):
        return file


def test_what_is_not_well_stands_there_with_what_to_do(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    health = [line.strip() for line in lines[lines.index("health     NOT READY") + 1 :]]
    assert [line.partition("   ")[0] for line in health[::2]] == ["listener", "detector", "delivery", "certificates"]
    assert "listener.tls.certificate_file expires on " in health[6]
    assert health[7] == "put a new one in its place; it is taken without a restart"


def test_a_program_gets_every_check_and_whether_the_node_is_ready(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--config", str(config), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["ready"] is False
    assert {item["name"]: item["state"] for item in tree["checks"]} == {
        "listener": "failed",
        "intake": "ok",
        "detector": "failed",
        "delivery": "warning",
        "destinations": "ok",
        "disk": "ok",
        "database": "ok",
        "certificates": "warning",
        "audit": "ok",
    }
    assert all(set(item) == {"name", "state", "message", "action"} for item in tree["checks"])
