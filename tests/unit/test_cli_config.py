"""``m3node config check`` shows what is in force, warns of what surprises, and refuses what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from certified import Authority, Shown
from m3node.cli import main
from m3node.cli.config import find_surprises
from m3node.settings import load

WORKING = """\
data_dir = "{folder}/data"
[listener]
host = "0.0.0.0"
[[listener.callers]]
ae_title = "CT1"
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "192.0.2.7"
port = 104
"""


@pytest.fixture
def working(tmp_path: Path) -> Path:
    path = tmp_path / "m3node.toml"
    path.write_text(WORKING.format(folder=tmp_path), encoding="utf-8")
    return path


def test_a_file_that_connects_two_machines_gives_no_warning(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(working), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["warnings"] == []
    assert shown["settings"]["listener"]["callers"][0]["ae_title"] == "CT1"


def test_what_differs_from_the_default_is_marked(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(working)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert '* listener.host = "0.0.0.0"' in lines
    assert "  listener.port = 11112" in lines


def test_the_defaults_warn_that_nobody_sends_and_nobody_receives() -> None:
    warnings = "\n".join(find_surprises(load()))
    assert "listener.callers is empty" in warnings
    assert "listener.host is 127.0.0.1" in warnings
    assert "destinations is empty" in warnings


def test_a_detector_that_is_not_installed_is_warned_of(working: Path) -> None:
    (warning,) = find_surprises(load(working, {"detector.name": "crystal-ball"}))
    assert "crystal-ball" in warning
    assert "contrast" in warning


def test_a_data_folder_below_a_file_is_warned_of(working: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (warning,) = find_surprises(load(working, {"data_dir": tmp_path / "file" / "data"}))
    assert "data_dir" in warning
    assert "not a folder" in warning


def test_a_data_folder_that_cannot_be_written_is_warned_of(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere, so the test says no for the kernel
    (warning,) = find_surprises(load(working))
    assert "may not write" in warning


@pytest.mark.parametrize("key", ["watch.folder", "watch.out"])
def test_a_watched_folder_that_is_a_file_is_warned_of(working: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("")
    folders = {"watch.folder": tmp_path / "in", "watch.out": tmp_path / "out", key: tmp_path / "file"}
    (warning,) = find_surprises(load(working, folders))
    assert warning.startswith(f"{key} is ")
    assert "not a folder" in warning


@pytest.mark.parametrize("key", ["log.folder", "audit.folder"])
def test_a_folder_for_logs_or_the_trail_that_is_a_file_is_warned_of(working: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("")
    (warning,) = find_surprises(load(working, {key: tmp_path / "file"}))
    assert warning.startswith(f"{key} is ")
    assert "not a folder" in warning


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"listener.port": 11180}, "web.port and listener.port are both 11180"),
        ({"listener.port": 11180, "listener.host": "::"}, "web.port and listener.port are both 11180"),
        ({"listener.port": 11180, "listener.host": "192.0.2.10"}, None),
        ({"listener.port": 11180, "web.enabled": False}, None),
        ({"web.port": 2762}, None),  # nobody listens there without a certificate
        ({"web.port": 443}, "a port below 1024 needs a right"),
        ({"web.port": 1024}, None),
        ({"web.port": 0, "listener.port": 0}, None),
        ({"web.names": ["https://node.example"]}, "'https://node.example' of web.names"),
        ({"web.names": ["node.example:11180"]}, "'node.example:11180' of web.names"),
        ({"web.names": ["node.example", "192.0.2.10", "fd00::1"]}, None),
    ],
)
def test_what_keeps_the_page_from_being_reached_is_warned_of(
    working: Path, changes: dict[str, object], said: str | None
) -> None:
    warnings = list(find_surprises(load(working, changes)))
    assert len(warnings) == (said is not None), warnings
    assert (said or "") in "".join(warnings)


def test_the_page_on_the_port_of_dicom_over_tls_is_warned_of(working: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    own = authority.issue("node")
    tls = {"certificate_file": own.certificate, "key_file": own.key, "ca_file": authority.file, "port": 11180}
    changes = {"listener.tls": tls, "listener.plain": False, "listener.port": 11180}
    (warning,) = find_surprises(load(working, changes))
    assert "web.port and listener.tls.port are both 11180" in warning


def test_a_key_of_the_page_that_is_not_there_is_warned_of_once(working: Path, tmp_path: Path) -> None:
    own = Authority(tmp_path / "authority").issue("node")
    own.key.unlink()
    (warning,) = find_surprises(load(working, {"web.certificate_file": own.certificate, "web.key_file": own.key}))
    assert warning == f"web.key_file is {own.key}, which this user cannot read"


@pytest.mark.parametrize("key", ["web.password_file", "web.token_file"])
@pytest.mark.parametrize("content", ["", "\r\n"])
def test_an_empty_secret_of_the_page_is_warned_of(working: Path, tmp_path: Path, key: str, content: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(content)
    secret.chmod(0o600)
    (warning,) = find_surprises(load(working, {key: secret}))
    assert warning == f"nobody is let in by {key}: {secret} is empty; write the secret into it"
    secret.write_text("x\n")
    assert list(find_surprises(load(working, {key: secret}))) == []
    secret.unlink()
    (warning,) = find_surprises(load(working, {key: secret}))
    assert "cannot read" in warning


def test_a_destination_that_is_the_node_itself_is_warned_of(working: Path) -> None:
    destination = {"name": "self", "ae_title": "M3NODE", "host": "127.0.0.1", "port": 11112}
    (warning,) = find_surprises(load(working, {"destinations": [destination]}))
    assert "self" in warning
    assert "node itself" in warning


ROUTED = {
    "listener.callers": [{"ae_title": "CT1"}, {"ae_title": "CT2"}],
    "destinations": [
        {"name": "pacs", "ae_title": "PACS", "host": "192.0.2.7"},
        {"name": "research", "ae_title": "RESEARCH", "host": "192.0.2.8"},
    ],
}


@pytest.mark.parametrize(
    ("rules", "warnings"),
    [
        ([], []),
        ([{"destinations": ["pacs"]}], ["destination research gets nothing"]),
        (
            [{"objects": ["report", "volumes", "presentation"], "destinations": ["pacs", "research"]}],
            ["the segmentation of series from any sender nowhere"],
        ),
        (
            [
                {"objects": ["report", "volumes", "segmentation"], "destinations": ["pacs"]},
                {"senders": ["CT2"], "destinations": ["research"]},
            ],
            ["the presentation of series from CT1 nowhere"],
        ),
    ],
)
def test_what_routing_sends_nowhere_and_who_gets_nothing_is_warned_of(
    working: Path, rules: list[dict[str, object]], warnings: list[str]
) -> None:
    found = list(find_surprises(load(working, {**ROUTED, "routing": rules})))
    assert len(found) == len(warnings)
    assert all(expected in warning for expected, warning in zip(warnings, found, strict=True))


def test_a_commitment_that_nobody_can_report_is_warned_of(working: Path) -> None:
    destination = {"name": "pacs", "ae_title": "PACS", "host": "192.0.2.7", "commitment": True}
    changed = {"destinations": [destination], "listener.host": "127.0.0.1"}
    assert [w for w in find_surprises(load(working, changed)) if "storage commitment from pacs cannot come in" in w]
    assert not list(find_surprises(load(working, {**changed, "listener.host": "0.0.0.0"})))


def test_a_mark_above_the_whole_disk_is_warned_of(working: Path) -> None:
    (warning,) = find_surprises(load(working, {"disk.refuse_free_mb": 1e12, "disk.warn_free_mb": 2e12}))
    assert "nothing is ever taken in: disk.refuse_free_mb is 1e+12" in warning


def test_a_node_that_refuses_before_it_warns_is_warned_of(working: Path) -> None:
    (warning,) = find_surprises(load(working, {"disk.refuse_free_mb": 20, "disk.warn_free_mb": 10}))
    assert "refuses before it warns" in warning


def test_a_database_password_that_others_may_read_is_warned_of(
    working: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    working.write_text('database_url = "postgresql://m3:secret@db/m3node"\n' + working.read_text())
    check = ["config", "check", "--config", str(working)]
    working.chmod(0o644)
    assert main(check) == 0
    shown = capsys.readouterr().out
    assert f"others may read the database's password: database_url stands in {working}" in shown
    assert "secret" not in shown
    working.chmod(0o640)
    assert main(check) == 0
    assert "warning" not in capsys.readouterr().out


def test_secrets_in_files_are_to_be_readable_by_the_node_and_by_nobody_else(working: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    web = {"name": "web", "url": "https://web.example/dicom-web", "bearer_token_file": token}
    settings = load(working, {"destinations": [web]})
    (warning,) = find_surprises(settings)
    assert f"bearer_token_file of destination web is {token}, which this user cannot read" in warning
    token.write_text("x")
    token.chmod(0o604)
    (warning,) = find_surprises(settings)
    assert f"others may read {token}" in warning
    token.chmod(0o600)
    assert list(find_surprises(settings)) == []


def test_a_password_over_plain_http_is_warned_of(working: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(0o600)
    web = {"name": "web", "url": "http://web.example/", "user": "m3", "password_file": tmp_path / "password"}
    (warning,) = find_surprises(load(working, {"destinations": [web]}))
    assert "unencrypted" in warning


def test_objects_over_plain_http_are_warned_of_unless_they_stay_on_this_machine(working: Path) -> None:
    def warnings(url: str) -> list[str]:
        return list(find_surprises(load(working, {"destinations": [{"name": "web", "url": url}]})))

    (warning,) = warnings("http://web.example/dicom-web")
    assert warning == "destination web gets patients' objects in the clear: its url is no https://"
    for url in ("https://web.example/", "http://127.0.0.1:8042/dicom-web", "http://[::1]/", "http://localhost/"):
        assert warnings(url) == []


def test_wrong_settings_exit_with_2_and_name_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[listener]\nprot = 1\n", encoding="utf-8")
    assert main(["config", "check", "--config", str(path)]) == 2
    assert "listener.prot" in capsys.readouterr().err


def test_config_without_an_action_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["config"])
    assert caught.value.code == 2


TWO_CALLERS = [{"ae_title": "CT1"}, {"ae_title": "CT2", "tls": True, "addresses": ["192.0.2.9"]}]


def over_tls(authority: Authority, own: Shown, **changes: object) -> dict[str, object]:
    files = {"certificate_file": own.certificate, "key_file": own.key, "ca_file": authority.file}
    return {"listener.callers": TWO_CALLERS, "listener.tls": {**files, **changes}}


def test_who_may_still_come_in_the_clear_is_named_where_there_is_tls(working: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    changed = over_tls(authority, authority.issue("node"))
    (warning,) = find_surprises(load(working, changed))
    assert warning.startswith("CT1 may come in the clear")
    pinned = {"ae_title": "CT3", "certificate_sha256": ["0" * 64]}
    assert warning in find_surprises(load(working, {**changed, "listener.callers": [*TWO_CALLERS, pinned]}))
    assert list(find_surprises(load(working, {**changed, "listener.plain": False}))) == []


def test_who_is_known_by_a_title_alone_is_named_where_callers_show_no_certificate(
    working: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    changed = over_tls(authority, authority.issue("node"), client_certificates="none")
    (warning,) = find_surprises(load(working, {**changed, "listener.plain": False}))
    assert warning.startswith("whoever says that he is CT1 is believed")


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (10.2, ["listener.tls.certificate_file expires in 10 days: "]),
        (0.5, ["listener.tls.certificate_file expires in 0 days: "]),
        (-2, ["listener.tls.certificate_file has expired: "]),
        (31, []),
    ],
)
def test_a_certificate_that_ends_soon_is_warned_of(
    working: Path, tmp_path: Path, days: float, words: list[str]
) -> None:
    authority = Authority(tmp_path)
    changed = over_tls(authority, authority.issue("node", days=days))
    found = list(find_surprises(load(working, {**changed, "listener.plain": False})))
    assert [warning[: len(word)] for warning, word in zip(found, words, strict=True)] == words


def test_certificates_that_cannot_be_used_are_warned_of_once_each(working: Path, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    own = authority.issue("node")
    changed = over_tls(authority, own, key_file=other.issue("node").key)
    (warning,) = find_surprises(load(working, {**changed, "listener.plain": False}))
    assert warning.startswith("the node will not start: the key in ")
    changed = over_tls(authority, own, ca_file=tmp_path / "none.pem")
    (warning,) = find_surprises(load(working, {**changed, "listener.plain": False}))
    assert warning.startswith("the node will not start: cannot read ")
    assert warning.endswith("none.pem: No such file or directory (listener.tls.ca_file)")
    syslog = {"client_certificate_file": own.certificate, "client_key_file": authority.issue("another").key}
    settings = load(working, {"audit.syslog": {"host": "127.0.0.1", **syslog}})
    (warning,) = [word for word in find_surprises(settings) if "audit.syslog" in word]
    assert "(audit.syslog.client_key_file) is not that of the certificate" in warning


def test_a_key_that_others_may_read_is_warned_of(working: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("node")
    own.key.chmod(0o644)
    (warning,) = find_surprises(load(working, {**over_tls(authority, own), "listener.plain": False}))
    assert "others may read" in warning
    assert "listener.tls.key_file" in warning
    own.certificate.write_bytes(own.key.read_bytes() + own.certificate.read_bytes())
    own.certificate.chmod(0o644)
    changed = over_tls(authority, own, key_file=None)
    (warning,) = find_surprises(load(working, {**changed, "listener.plain": False}))
    assert f"{own.certificate}, which listener.tls.certificate_file names" in warning


def test_a_destination_that_cannot_be_called_with_its_files_is_warned_of_once(working: Path, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    own, strange = authority.issue("node"), other.issue("node")

    def warnings(**settings: object) -> list[str]:
        files = {"ca_file": authority.file, "client_certificate_file": own.certificate, "client_key_file": own.key}
        web = {"name": "web", "url": "https://web.example/dicom-web", **files, **settings}
        return list(find_surprises(load(working, {"destinations": [web]})))

    assert warnings() == []
    (warning,) = warnings(client_key_file=strange.key)
    assert warning.startswith("destination web gets nothing: the key in ")
    (warning,) = warnings(ca_file=tmp_path / "none.pem")
    assert warning.endswith("none.pem: No such file or directory (destinations.web.ca_file)")


def test_a_callers_limit_above_that_of_all_is_warned_of(working: Path) -> None:
    own = {"max_associations": 60, "instances_per_minute": 600, "max_object_mb": 3000.0, "idle_seconds": 30.0}
    callers = {"listener.callers": [{"ae_title": "CT1", **own}]}
    above = list(find_surprises(load(working, callers)))
    assert above == [
        "max_associations of listener.callers CT1 has no effect: it is 60, and listener.max_associations is 50",
        "max_object_mb of listener.callers CT1 has no effect: it is 3000, and listener.max_object_mb is 2000",
    ]
    within = {**callers, "listener.max_associations": 60, "listener.max_object_mb": 3000.0}
    assert list(find_surprises(load(working, within))) == []


@pytest.mark.parametrize(("rate", "warned"), [(1, True), (5, True), (6, False), (0, False)])
def test_a_rate_that_refuses_instead_of_slowing_down_is_warned_of(working: Path, rate: int, *, warned: bool) -> None:
    found = list(find_surprises(load(working, {"listener.instances_per_minute": rate})))
    assert len(found) == warned
    assert all("instances_per_minute of listener is" in line for line in found)
