"""The image and the composition: rules that matter in a hospital hold, by parsing alone; no engine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certified import Authority
from dockerfile import history, stages, violations
from m3node.cli.config import find_surprises
from m3node.settings import load

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
TARGETS = ("core", "cpu", "cuda")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_dockerfile_breaks_no_rule() -> None:
    assert violations(DOCKERFILE, TARGETS) == []
    assert stages(DOCKERFILE)[1][-1].name == "core"


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("USER 10001:10001", "USER root", "runs as root"),
        ("USER 10001:10001", "USER m3node", "whose number"),
        ("debian:12.11-slim", "debian:latest", "not pinned"),
        ("debian:12.11-slim", "debian", "not pinned"),
        (" --no-install-recommends ca-certificates python3 \\", " ca-certificates python3 \\", "recommends"),
        ("ca-certificates python3 \\", "ca-certificates python3 gcc \\", "gcc in what runs"),
        (" && rm -rf /var/lib/apt/lists/*", "", "lists stay"),
        ("apt-get update \\\n && ", "", "without update"),
        ("COPY m3node m3node", "ADD https://example.org/m3node.tar.gz .", "ADD"),
        ("ENV M3NODE_CONFIG", "ENV HF_TOKEN=x M3NODE_CONFIG", "a secret in ENV HF_TOKEN"),
        ('CMD ["serve"]', "CMD serve", "shell"),
        ("STOPSIGNAL SIGTERM", "", "no STOPSIGNAL"),
        ("HEALTHCHECK --interval", "ENV X=1 --interval", "no HEALTHCHECK"),
    ],
)
def test_each_rule_is_noticed_when_it_is_broken(right: str, wrong: str, said: str) -> None:
    assert right in DOCKERFILE
    found = violations(DOCKERFILE.replace(right, wrong), TARGETS)
    assert any(said in problem for problem in found), found


def test_all_that_is_copied_exists_and_is_let_through_to_the_build() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = set()
    for stage in stages(DOCKERFILE)[1]:
        for word, rest in stage.steps:
            if word == "COPY" and not rest.startswith("--from"):
                copied |= set(rest.split()[:-1])
    assert copied == allowed
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_only_the_build_has_pip_and_it_keeps_to_the_constraints() -> None:
    _, found = stages(DOCKERFILE)
    runs = history(next(stage for stage in found if stage.name == "core"), found)
    assert not any("pip" in rest for word, rest in runs if word == "RUN")
    for name in ("build", "build-cpu", "build-cuda"):
        steps = history(next(stage for stage in found if stage.name == name), found)
        assert any(word == "ENV" and "PIP_CONSTRAINT=/src/constraints.txt" in rest for word, rest in steps)
    # What builds our wheel is pinned, too.
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^hatchling==", pinned, flags=re.MULTILINE)


def test_the_image_s_version_is_the_package_s() -> None:
    from m3node import __version__

    assert f"ARG VERSION={__version__}" in DOCKERFILE


@pytest.mark.parametrize("path", ["m3node.toml", "settings/m3node.toml"])
def test_the_settings_of_a_container_are_settings(path: str) -> None:
    settings = load(DOCKER / path)
    assert settings.listener.host == "0.0.0.0"
    assert f'VOLUME ["{settings.data_dir}"' in DOCKERFILE
    ports = {settings.listener.port, settings.listener.tls.port, settings.web.port}
    (exposed,) = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert {int(port) for port in exposed.split()} == ports
    # The health check asks the page.
    assert settings.web.enabled
    # By itself the image takes nothing from anybody.
    assert bool(settings.listener.callers) == (path != "m3node.toml")


def test_the_composition_s_node_and_orthanc_know_each_other(tmp_path: Path) -> None:
    settings = load(DOCKER / "settings" / "m3node.toml")
    (destination,) = settings.destinations
    orthanc = json.loads((DOCKER / "settings" / "orthanc.json").read_text())
    sample = json.loads((ROOT / "configs" / "peers" / "orthanc" / "m3node.json").read_text())
    peer = sample["DicomModalities"]["m3node"]
    assert (peer["AET"], peer["Port"]) == (settings.listener.ae_title, settings.listener.port)
    assert [caller.ae_title for caller in settings.listener.callers] == [orthanc["DicomAet"]] == [destination.ae_title]
    assert destination.host == "orthanc"
    assert f"{destination.port}:{destination.port}" in SERVICES["orthanc"]["ports"]
    for name in ("m3node-cpu", "m3node-gpu"):
        assert SERVICES[name]["networks"]["dicom"]["aliases"] == [peer["Host"]]
    assert "dicom" in SERVICES["orthanc"]["networks"]
    assert [line for line in find_surprises(settings) if "/run/secrets" not in line and "data" not in line] == []


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_gets_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service.get("network_mode") != "host"
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == "unless-stopped"
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ()))
    if name != "orthanc":  # its own start writes below /usr/share
        assert service["read_only"] is True
    if "build" not in service:
        assert re.search(r":\d+\.\d+", service["image"])
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
        assert "healthcheck" in service  # our own has it in the image
    else:
        assert (ROOT / "docker" / service["build"]["dockerfile"].removeprefix("docker/")).exists()
        assert service["build"]["target"] in TARGETS


def test_no_secret_stands_in_the_composition() -> None:
    text = (DOCKER / "compose.yaml").read_text() + "".join(path.read_text() for path in (DOCKER / "settings").iterdir())
    assert not re.search(r"(password|token)\w*\"?\s*[:=]\s*\"?[^\s/{\[.]+$", text, flags=re.IGNORECASE | re.MULTILINE)
    assert {Path(secret["file"]).parent.name for secret in COMPOSE["secrets"].values()} == {"secrets"}
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/docker/secrets/" in ignored
    used = {name for service in SERVICES.values() for name in service.get("secrets", ())}
    assert used == set(COMPOSE["secrets"])


def test_every_file_that_is_mounted_exists() -> None:
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    assert [path for path in sources if path.startswith(".") and not (DOCKER / path).is_file()] == []
    assert {path for path in sources if not path.startswith(".")} == set(COMPOSE["volumes"])


def test_the_database_is_on_a_network_of_its_own_and_published_nowhere() -> None:
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert SERVICES["database"]["networks"] == ["database"]
    assert "ports" not in SERVICES["database"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["orthanc"]["ports"] if "8042" in port)


def test_the_page_is_published_to_this_machine_alone_and_asks_for_a_password() -> None:
    web = load(DOCKER / "settings" / "m3node.toml").web
    for name in ("m3node-cpu", "m3node-gpu"):
        (published,) = [port for port in SERVICES[name]["ports"] if port.endswith(f":{web.port}")]
        assert published.startswith("127.0.0.1:")
        secrets = {f"/run/secrets/{secret}" for secret in SERVICES[name]["secrets"]}
        named = (web.password_file, web.token_file, web.certificate_file, web.key_file)
        assert {str(path) for path in named} <= secrets


def test_the_node_is_given_the_time_to_stop_in_order() -> None:
    drain = load(DOCKER / "settings" / "m3node.toml").jobs.drain_seconds
    for name in ("m3node-cpu", "m3node-gpu"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= drain + 30


def test_secrets_are_made_once_and_never_again(tmp_path: Path) -> None:
    script = shutil.copy(DOCKER / "make-secrets", tmp_path)
    first = subprocess.run([script], capture_output=True, text=True, check=True)
    folder = tmp_path / "secrets"
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert made["database_url"] == f"postgresql://m3node:{made['database_password']}@database/m3node"
    (password,) = json.loads(made["orthanc_users.json"])["RegisteredUsers"].values()
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert re.fullmatch(r"[0-9a-f]{48}", made["database_password"])
    assert password != made["database_password"]
    assert folder.stat().st_mode & 0o077 == 0
    assert password not in first.stdout
    assert made["web_password"] not in first.stdout
    certificate = x509.load_pem_x509_certificate(made["web.pem"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    settings = load(DOCKER / "settings" / "m3node.toml")
    assert names.get_values_for_type(x509.DNSName) == ["localhost", *settings.web.names]
    # Whoever has his browser trust it must not trust with it what its key signs for other names.
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(uses.value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert limits.critical
    assert not limits.value.ca
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "web.pem", folder / "web.key")
    subprocess.run([script], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_docker_itself_reads_the_composition(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    for profile in ("cpu", "gpu"):
        command = [docker, "compose", "--file", str(DOCKER / "compose.yaml"), "--profile", profile, "config", "--quiet"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr


def health(folder: Path, status: str, *roles: str) -> tuple[int, str]:
    """What the health check says of a node whose ``m3node status --json`` prints something."""
    node, python = folder / "m3node", folder / "python"
    node.write_text(f"#!/bin/sh\n[ \"$*\" = 'status --json' ] && echo '{status}'\n")
    node.chmod(0o755)
    python.symlink_to(sys.executable)
    command = [python, DOCKER / "healthcheck.py", *roles]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.returncode, answer.stdout.strip()


@pytest.mark.parametrize(
    ("running", "asked", "status", "said"),
    [
        ({"listen": True, "deliver": True}, (), 0, "alive"),
        ({"listen": True, "deliver": False}, (), 1, "down: deliver"),
        ({"listen": True, "deliver": False}, ("listen",), 0, "alive"),
        ({"listen": True}, ("worker-3",), 1, "down: worker-3"),
    ],
)
def test_health_is_that_the_roles_are_somebody(
    tmp_path: Path, running: dict[str, bool], asked: tuple[str, ...], status: int, said: str
) -> None:
    roles = json.dumps({"roles": [{"name": name, "running": is_so} for name, is_so in running.items()]})
    assert health(tmp_path, roles, *asked) == (status, said)


@pytest.mark.parametrize(("answer", "said"), [(200, "alive"), (500, "down: web (it does not answer)")])
def test_a_page_of_this_machine_has_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int, said: str
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    # The image's Python knows the package; the test's stand-in is a link outside of its environment.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *(path for path in sys.path if path)]))
    role = {"name": "web", "running": True, "host": socket.gethostname()}
    elsewhere = role | {"host": "another-machine"}
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("M3NODE_WEB__PORT", str(server.server_port))
        assert health(tmp_path, json.dumps({"roles": [role]}))[1] == said
        server.shutdown()
    (tmp_path / "python").unlink()
    assert health(tmp_path, json.dumps({"roles": [role]}))[1] == "down: web (it does not answer)"
    (tmp_path / "python").unlink()
    assert health(tmp_path, json.dumps({"roles": [elsewhere]}))[1] == "alive"


def test_a_node_that_says_nothing_is_not_healthy(tmp_path: Path) -> None:
    assert health(tmp_path, "")[0] == 1


@pytest.fixture
def healthcheck() -> ModuleType:
    """The script as a module: faster than a process for each question."""
    spec = spec_from_file_location("healthcheck", DOCKER / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"no HTTP"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1"])
def test_a_page_over_https_is_asked_on_this_machine_whatever_its_certificate_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthcheck: ModuleType, host: str, answer: bytes
) -> None:
    own = Authority(tmp_path).issue("another-name")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        setting = {
            "HOST": host,
            "PORT": str(listening.getsockname()[1]),
            "CERTIFICATE_FILE": str(own.certificate),
            "KEY_FILE": str(own.key),
            "TOKEN_FILE": str(own.key),
        }
        for name, value in setting.items():
            monkeypatch.setenv(f"M3NODE_WEB__{name}", value)

        def serve() -> None:
            with suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as connection:
                assert connection.recv(4096).startswith(b"GET /livez ")
                connection.sendall(answer + b"\r\nContent-Length: 0\r\n\r\n")

        # A daemon: who never comes must not keep a test that failed from ending.
        page = threading.Thread(target=serve, daemon=True)
        page.start()
        assert healthcheck.page_answers() is answer.endswith(b"200 OK")
        page.join()


@pytest.mark.parametrize("certificate", [False, True], ids=["http", "https"])
def test_a_page_that_hangs_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthcheck: ModuleType, certificate: bool
) -> None:
    monkeypatch.setattr(healthcheck, "ANSWER_SECONDS", 0.1)
    if certificate:
        own = Authority(tmp_path).issue("localhost")
        monkeypatch.setenv("M3NODE_WEB__CERTIFICATE_FILE", str(own.certificate))
        monkeypatch.setenv("M3NODE_WEB__KEY_FILE", str(own.key))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("M3NODE_WEB__PORT", str(silent.getsockname()[1]))
        assert not healthcheck.page_answers()


def test_a_page_is_not_asked_where_nobody_wants_it_or_nobody_knows_its_port(
    monkeypatch: pytest.MonkeyPatch, healthcheck: ModuleType
) -> None:
    monkeypatch.setenv("M3NODE_WEB__PORT", "0")
    assert healthcheck.page_answers()
    monkeypatch.setattr(healthcheck, "page_answers", lambda: False)
    here = {"running": True, "host": socket.gethostname()}
    status = {"roles": [{"name": "web", **here}, {"name": "listen", **here}]}
    assert healthcheck.missing(status, ["listen"]) == []
    assert healthcheck.missing(status, []) == healthcheck.missing(status, ["web"]) == ["web (it does not answer)"]
