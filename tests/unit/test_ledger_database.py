"""The ledger's database: where it is, that its tables are this release's, and that its password stays with us."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import SQLAlchemyError

from m3node.errors import ConfigError, DatabaseError
from m3node.jobs.ledger.database import describe_url, engine_url, ledger_url, open_engine, prepare
from m3node.jobs.ledger.tables import Base
from m3node.settings import Settings
from postgres import PASSWORD


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a node on either database, nothing prepared yet."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return Settings(data_dir=tmp_path / "data", database_url=url)


def test_without_a_url_there_are_two_files_below_the_data_folder(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert ledger_url(settings).database == str(tmp_path / "database" / "ledger.sqlite")
    assert engine_url(settings) == f"sqlite:///{tmp_path}/database/engine.sqlite"


def test_the_url_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://m3:secret@db.example/node\n")
    settings = Settings(database_url_file=file)
    assert ledger_url(settings).host == "db.example"
    assert ledger_url(settings).drivername == "postgresql+psycopg"
    assert engine_url(settings) == "postgresql+psycopg://m3:secret@db.example/node"


def test_a_database_is_named_without_password_and_parameters() -> None:
    url = ledger_url(Settings(database_url="postgresql://m3:secret@db/node?sslpassword=hidden"))
    assert describe_url(url) == "postgresql+psycopg://m3:***@db/node"


@pytest.mark.parametrize(
    "url",
    ["mysql://m3:secret@db/node", "postgresql://m3:secret@db", "postgresql://m3:secret@db:port/node", "secret"],
)
def test_a_url_of_no_postgresql_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="set postgresql://user:password@host/name") as caught:
        ledger_url(Settings(database_url=url))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [None, b"", b"\xff"])
def test_a_file_without_a_url_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="database_url_file"):
        ledger_url(Settings(database_url_file=file))


def test_migrations_make_the_tables_that_the_code_uses(settings: Settings) -> None:
    prepare(settings)
    engine = open_engine(settings)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        assert {"run", "delivery", "alembic_version"} <= set(inspect(connection).get_table_names())
    engine.dispose()


def test_the_engine_finds_its_tables_ready(settings: Settings) -> None:
    prepare(settings)
    engine = open_engine(settings, role="engine")
    with engine.begin() as connection:
        schema = "dbos" if engine.dialect.name == "postgresql" else None
        assert {"workflow_status", "queues"} <= set(inspect(connection).get_table_names(schema))
    engine.dispose()


def test_several_processes_may_prepare_at_once_and_again(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(prepare, [settings] * 8):
            pass
    engine = open_engine(settings)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1
    engine.dispose()


def test_tables_of_a_newer_release_are_left_alone(settings: Settings) -> None:
    prepare(settings)
    engine = open_engine(settings)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match=r"newer m3node has changed the ledger's tables \(to 9999\)"):
        prepare(settings)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


def test_postgresql_holds_the_ledger_in_a_schema_of_its_own(tmp_path: Path, postgres_url: str) -> None:
    settings = Settings(data_dir=tmp_path, database_url=postgres_url)
    prepare(settings)
    engine = open_engine(settings)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names("public") == []
        assert "run" in inspect(connection).get_table_names("m3node")
    engine.dispose()
    assert not list((tmp_path / "database").iterdir())


def test_sqlite_files_are_made_for_several_processes(tmp_path: Path) -> None:
    prepare(Settings(data_dir=tmp_path))
    for name in ("ledger.sqlite", "engine.sqlite"):
        connection = sqlite3.connect(tmp_path / "database" / name)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


def test_a_reader_of_sqlite_waits_for_no_writer(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    prepare(settings)
    writer, reader = open_engine(settings), open_engine(settings).execution_options(m3node_read_only=True)
    with writer.begin() as writing, reader.connect() as reading:
        writing.execute(text("INSERT INTO mark VALUES ('files', 1)"))
        assert reading.scalar(text("SELECT count(*) FROM mark")) == 0
    with reader.connect() as reading:
        assert reading.scalar(text("SELECT count(*) FROM mark")) == 1
    writer.dispose()
    reader.dispose()


def test_on_sqlite_a_writer_has_its_turn_from_its_first_question_on(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    prepare(settings)
    engine = open_engine(settings)
    other = sqlite3.connect(tmp_path / "database" / "ledger.sqlite", timeout=0, isolation_level=None)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM mark")) == 0
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            other.execute("BEGIN IMMEDIATE")
        connection.execute(text("INSERT INTO mark VALUES ('files', 0)"))
    other.execute("BEGIN IMMEDIATE")
    other.close()
    engine.dispose()


@pytest.mark.parametrize("role", ["ledger", "engine"])
def test_an_error_of_the_database_quotes_no_value(settings: Settings, role: Literal["ledger", "engine"]) -> None:
    prepare(settings)
    engine = open_engine(settings, role)
    with engine.connect() as connection, pytest.raises(SQLAlchemyError) as caught:
        connection.execute(text("INSERT INTO nowhere VALUES (:value)"), {"value": "Zyxwv^Utsrq"})
    assert "nowhere" in str(caught.value)
    assert "Zyxwv" not in str(caught.value)
    engine.dispose()


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://m3:{PASSWORD}@127.0.0.1:1/node"
    with pytest.raises(
        DatabaseError, match=r"postgresql\+psycopg://m3:\*\*\*@127.0.0.1:1/node cannot be used"
    ) as caught:
        prepare(Settings(data_dir=tmp_path, database_url=url))
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(caught.value.__cause__)


def test_a_file_that_is_no_database_gives_a_clear_error(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DatabaseError, match="cannot be used: file is not a database"):
        prepare(settings)
