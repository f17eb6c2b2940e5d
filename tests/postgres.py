"""A PostgreSQL that the tests start themselves, for as long as they run; each test gets an empty database of its own.

PostgreSQL refuses to run as root: then it runs as ``nobody``, in a folder that is open to him.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from ports import free_port
from waiting import wait_for

USER = "m3"
PASSWORD = "not-to-be-seen"
"""Nobody is asked for it here; a test can look for it where no password may stand."""


@dataclass(frozen=True)
class PostgresServer:
    """Where the server listens."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"


def _programs() -> Path | None:
    """The newest release's folder; Debian has it outside of PATH."""
    releases = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if releases:
        return releases[-1]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server with nothing in it, and leave nothing of it behind."""
    programs = _programs()
    if programs is None:
        from conftest import missing

        missing("PostgreSQL")
        raise AssertionError
    root = os.geteuid() == 0
    as_user = ["runuser", "-u", "nobody", "--"] if root else []
    folder = Path(tempfile.mkdtemp(prefix="m3node-postgres-"))
    try:
        if root:
            shutil.chown(folder, "nobody")
        data = folder / "data"
        initdb = [*as_user, programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*initdb, "--locale=C"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        server = PostgresServer(free_port())
        options = {
            "port": server.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 200,
        }
        switches = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*as_user, programs / "postgres", "-D", data, *switches], cwd=folder, stdout=log, stderr=log
            )
        try:
            wait_for(lambda: _answers(server, process, folder / "log"))
            yield server
        finally:
            # runuser would not hand the signal on; an immediate end is enough for what is thrown away.
            os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGQUIT)
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: PostgresServer, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        psycopg.connect(server.url("postgres"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database, as a person writes it into the settings."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
