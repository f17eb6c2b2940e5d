"""Defaults < TOML < environment < flags; and a wrong key anywhere is an error that names it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from m3node.errors import ConfigError
from m3node.settings import Settings, load

SAMPLE = Path(__file__).resolve().parents[2] / "configs" / "m3node.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "m3node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_hold_when_nothing_is_set() -> None:
    settings = load()
    assert (settings.listener.ae_title, settings.listener.port, settings.completeness.quiet_seconds) == (
        "M3NODE",
        11112,
        10.0,
    )


def test_each_source_wins_over_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "[listener]\nport = 1001\nreceivers = 2\nmax_associations = 7\n")
    assert load(path).listener.port == 1001
    monkeypatch.setenv("M3NODE_LISTENER__PORT", "1002")
    monkeypatch.setenv("M3NODE_LISTENER__RECEIVERS", "3")
    assert load(path).listener.port == 1002
    listener = load(path, {"listener.port": 1003}).listener
    assert (listener.port, listener.receivers, listener.max_associations) == (1003, 3, 7)


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3NODE_CONFIG", str(written(tmp_path, '[log]\nlevel = "DEBUG"\n')))
    assert load().log.level == "DEBUG"


def test_a_list_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3NODE_LISTENER__CALLERS", '[{"ae_title": "CT1", "quiet_seconds": 3}]')
    (caller,) = load().listener.callers
    assert (caller.ae_title, caller.quiet_seconds) == ("CT1", 3.0)


def test_a_folder_of_a_flag_leaves_the_rest_of_the_section_alone(tmp_path: Path) -> None:
    path = written(tmp_path, f'[watch]\nfolder = "{tmp_path}/in"\nout = "{tmp_path}/out"\n')
    watch = load(path, {"watch.out": tmp_path / "other"}).watch
    assert (watch.folder, watch.out) == (tmp_path / "in", tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1\n", "prot"),
        ("[listener]\nprot = 1\n", "listener.prot"),
        ("[detector.contrast]\nhyper = true\n", "detector.contrast.hyper"),
        ('[[listener.callers]]\nae_title = "CT1"\nquiet = 1\n', "listener.callers.0.quiet"),
        ("[listener]\nport = 99999\n", "listener.port"),
        ("[listener]\nport = 'many'\n", "listener.port"),
        ('[listener]\nae_title = "LONGER THAN SIXTEEN"\n', "listener.ae_title"),
        ('[listener]\nae_title = "A\\\\B"\n', "listener.ae_title"),
        ("[m3]\npaddings = []\n", "m3.paddings"),
        ('[watch]\nfolder = "in"\n', "watch.out"),
        (
            '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\n'
            '[[destinations]]\nname = "a"\nae_title = "B"\nhost = "h"\nport = 2\n',
            "two destinations",
        ),
        (
            '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\ncommitment = true\n'
            '[delivery]\ncalling_ae_title = "OTHER"\n',
            "delivery.calling_ae_title",
        ),
        ('[[destinations]]\nname = "../a"\nae_title = "A"\nhost = "h"\nport = 1\n', "destinations.0.name"),
        ('[[listener.callers]]\nae_title = "A"\n[[listener.callers]]\nae_title = "A"\n', "listener.callers"),
        ("[listener]\nidle_seconds = inf\n", "listener.idle_seconds"),
        ("[listener.tls]\nhandshake_seconds = 0\n", "listener.tls.handshake_seconds"),
        ("[listener.tls]\nhandshake_seconds = nan\n", "listener.tls.handshake_seconds"),
        ('[[listener.callers]]\nae_title = "A"\nwait_for_seg_seconds = inf\n', "wait_for_seg_seconds"),
        # Certificates that would not be used, by somebody who takes the way for safe.
        ('[[destinations]]\nname = "a"\nurl = "http://h/"\nca_file = "ca.pem"\n', "begin with https"),
        (f'[[destinations]]\nname = "a"\nurl = "http://h/"\ncertificate_sha256 = ["{"0" * 64}"]\n', "begin with https"),
        (
            '[[destinations]]\nname = "a"\nurl = "http://h/"\nclient_certificate_file = "own.pem"\n',
            "begin with https",
        ),
        ('[[destinations]]\nname = "a"\nurl = "https://h/"\nclient_key_file = "k"\n', "set client_certificate_file"),
        (
            '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\ntls = true\nclient_key_password_file = "k"\n',
            "set client_certificate_file",
        ),
        ('[audit.syslog]\nhost = "h"\nclient_key_file = "k"\n', "set client_certificate_file"),
    ],
)
def test_a_wrong_file_is_refused_and_the_key_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")) as caught:
        load(written(tmp_path, text))
    assert "m3node.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("M3NODE_PROT", "1", "M3NODE_PROT"),
        ("M3NODE_LISTENER__PROT", "1", "listener.prot"),
        ("M3NODE_DETECTOR__CONTRAST__HYPER", "true", "detector.contrast.hyper"),
        ("M3NODE_LISTENER__PORT", "many", "listener.port"),
        ("M3NODE_DESTINATIONS", "not json", "destinations"),
    ],
)
def test_a_wrong_variable_is_refused_and_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        load()


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, "[listener]\nport = 99999\nreceivers = 0\n[log]\nlevel = 'LOUD'\n"))
    assert all(key in str(caught.value) for key in ("listener.port", "listener.receivers", "log.level"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(tmp_path / "none.toml")


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(written(tmp_path, "listener = [\n"))


def test_the_sample_loads_and_names_every_setting() -> None:
    load(SAMPLE)
    # A setting without a default value stands there commented out, so that the sample is a file that works.
    uncommented = tomllib.loads(_uncomment_settings(SAMPLE.read_text(encoding="utf-8")))
    assert sorted(set(_keys_of_model(Settings)) - set(_keys_of_tree(uncommented))) == []


def test_the_sample_shows_the_defaults() -> None:
    sample, defaults = load(SAMPLE).model_dump(), load().model_dump()
    lists = {"listener": ("callers",), "selection": ("rules",)}
    for section, names in lists.items():
        for name in names:
            sample[section].pop(name)
            defaults[section].pop(name)
    for name in ("destinations", "priority", "routing"):
        sample.pop(name)
        defaults.pop(name)
    assert sample == defaults


def _uncomment_settings(text: str) -> str:
    lines = (line[2:] if line.startswith("# ") and " = " in line.split("#")[1] else line for line in text.splitlines())
    return "\n".join(lines)


def _keys_of_model(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        nested = next((kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)), None)
        if nested is None:
            yield prefix + name
        else:
            yield from _keys_of_model(nested, f"{prefix}{name}.")


def _kinds(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _kinds(argument)


def _keys_of_tree(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        children = value if isinstance(value, list) else [value]
        if children and all(isinstance(child, dict) for child in children):
            for child in children:
                yield from _keys_of_tree(child, f"{prefix}{name}.")
        else:
            yield prefix + name
