"""The units of systemd: each runs a command that exists, all are guarded alike, and systemd has no complaint."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from m3node.cli.main import build_parser
from m3node.settings import Settings, load

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
OWN = {"ExecStart"}
"""What of ``[Service]`` differs from role to role."""


def service(path: Path) -> dict[str, list[str]]:
    """The section ``[Service]``: key to values, since some stand twice."""
    found: dict[str, list[str]] = defaultdict(list)
    section = path.read_text(encoding="utf-8").partition("[Service]\n")[2].partition("\n[")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return dict(found)


def there(unit: Path, folder: Path) -> Path:
    """The unit with a command that exists here, and the others beside it."""
    for path in [*UNITS, FOLDER / "m3node.target"]:
        (folder / path.name).write_text(path.read_text().replace("/opt/m3node/bin/m3node", "/bin/true"))
    # The template itself cannot be looked at, but one of it can.
    name = unit.name.replace("@.", "@0.")
    if name != unit.name:
        (folder / name).write_text((folder / unit.name).read_text())
    return folder / name


def test_there_is_a_unit_for_the_node_and_for_each_of_its_roles() -> None:
    commands = {path.name: service(path)["ExecStart"] for path in UNITS}
    assert commands == {
        "m3node.service": ["/opt/m3node/bin/m3node serve"],
        "m3node-listen.service": ["/opt/m3node/bin/m3node listen"],
        "m3node-worker@.service": ["/opt/m3node/bin/m3node worker --slot %i"],
        "m3node-web.service": ["/opt/m3node/bin/m3node web"],
        "m3node-deliver.service": ["/opt/m3node/bin/m3node deliver"],
        "m3node-watch.service": ["/opt/m3node/bin/m3node watch"],
    }
    for (command,) in commands.values():
        build_parser().parse_args(command.replace("%i", "3").split()[1:])


def test_all_units_are_guarded_alike() -> None:
    first, *others = [{key: value for key, value in service(path).items() if key not in OWN} for path in UNITS]
    assert all(other == first for other in others)
    assert first["User"] == ["m3node"]
    assert first["ProtectSystem"] == ["strict"]
    assert first["NoNewPrivileges"] == ["yes"]
    assert first["CapabilityBoundingSet"] == [""]
    assert first["MemoryDenyWriteExecute"] == ["yes"]


def test_a_stop_leaves_the_node_the_time_that_it_takes() -> None:
    for path in UNITS:
        assert int(service(path)["TimeoutStopSec"][0]) >= Settings().jobs.drain_seconds + 30
        assert service(path)["KillMode"] == ["mixed"]


def test_the_whole_node_and_its_roles_are_not_run_beside_each_other() -> None:
    for path in UNITS:
        if path.name != "m3node.service":
            assert "Conflicts=m3node.service\n" in path.read_text()
            assert "WantedBy=m3node.target\n" in path.read_text()
    (named,) = re.findall(r"^Conflicts=(.*)$", (FOLDER / "m3node.service").read_text(), flags=re.MULTILINE)
    # Of a template no unit can be named; its own line is enough.
    others = {path.name for path in UNITS if "@" not in path.name} - {"m3node.service"} | {"m3node.target"}
    assert set(named.split()) == others


def test_the_drop_in_for_torch_gives_up_no_more_than_it_must() -> None:
    assert set(service(FOLDER / "medgemma.conf")) == {
        "MemoryDenyWriteExecute",
        "PrivateDevices",
        "DeviceAllow",
        "ProcSubset",
    }
    assert set(service(FOLDER / "watched-folders.conf")) == {"ReadWritePaths"}


def test_the_drop_in_for_credentials_hands_over_what_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_in = service(FOLDER / "credentials.conf")
    assert set(drop_in) == {"LoadCredential", "Environment"}
    loaded = {value.partition(":")[0] for value in drop_in["LoadCredential"]}
    named = dict(value.split("=", 1) for value in drop_in["Environment"])
    assert {value.removeprefix("%d/") for value in named.values()} == loaded
    config = tmp_path / "m3node.toml"
    config.write_text(
        '[listener.tls]\ncertificate_file = "n.pem"\nca_file = "a.pem"\n[web]\ncertificate_file = "n.pem"\n'
    )
    for name, value in named.items():
        monkeypatch.setenv(name, value.replace("%d", "/run/credentials/m3node.service"))
    settings = load(config)
    folder = Path("/run/credentials/m3node.service")
    tls = settings.listener.tls
    assert (tls.certificate_file, tls.key_file) == (Path("n.pem"), folder / "node.key")
    assert (settings.web.key_file, settings.web.password_file) == (folder / "node.key", folder / "web.password")


@pytest.mark.parametrize("drop_in", sorted(FOLDER.glob("*.conf")), ids=lambda path: path.name)
def test_systemd_reads_the_unit_with_each_drop_in_without_a_word(
    tmp_path: Path, drop_in: Path, program: Callable[[str], str]
) -> None:
    unit = there(FOLDER / "m3node.service", tmp_path)
    folder = tmp_path / "m3node.service.d"
    folder.mkdir()
    (folder / drop_in.name).write_text(drop_in.read_text())
    command = [program("systemd-analyze"), "verify", "--man=no", str(unit)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in answer.stderr.splitlines() if "m3node" in line or drop_in.name in line] == []
    (folder / drop_in.name).write_text(drop_in.read_text() + "NoSuchKey=1\n")
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "NoSuchKey" in answer.stderr  # it was looked at


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_reads_the_unit_without_a_word(tmp_path: Path, unit: Path, program: Callable[[str], str]) -> None:
    command = [program("systemd-analyze"), "verify", "--man=no", str(there(unit, tmp_path))]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in answer.stderr.splitlines() if "m3node" in line]
    assert said == []
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_exposure_is_no_more_than_the_documents_say(
    tmp_path: Path, unit: Path, program: Callable[[str], str]
) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"`systemd-analyze security` gives each\s+unit ([0-9.]+)", text)
    command = [program("systemd-analyze"), "security", "--offline=true", "--no-pager", str(there(unit, tmp_path))]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    (level,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", answer.stdout)
    assert float(level) <= float(stated)
