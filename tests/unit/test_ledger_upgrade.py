"""The ledger of every older release is brought to this one's tables, with all its rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, select, text

from m3node.errors import DatabaseError
from m3node.jobs.ledger import database
from m3node.jobs.ledger.database import open_engine, prepare
from m3node.jobs.ledger.tables import Base
from m3node.settings import Settings

OLDER = ("0001",)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a node on either database, nothing prepared yet."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return Settings(data_dir=tmp_path / "data", database_url=url)


def as_it_was(settings: Settings, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the database as an older release left it."""
    upgrade = command.upgrade
    with monkeypatch.context() as older:
        older.setattr(command, "upgrade", lambda config, _revision: upgrade(config, revision))
        prepare(settings)


def fill(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Put some rows into every table, and return them."""
    for table in Base.metadata.sorted_tables:
        for number in range(3):
            row = {
                column.name: f"{column.name}-{number}" if column.type.python_type is str else number
                for column in table.columns
            }
            connection.execute(insert(table).values(row))
    return rows(connection)


def rows(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    return {
        table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
        for table in Base.metadata.sorted_tables
    }


def revisions(settings: Settings) -> list[str]:
    engine = open_engine(settings)
    with engine.connect() as connection:
        found = list(connection.scalars(text("SELECT version_num FROM alembic_version")))
    engine.dispose()
    return found


def test_every_older_state_of_the_tables_is_tested() -> None:
    folder = Path(database.__file__).parent / "migrations"
    all_of_them = [script.revision for script in ScriptDirectory(str(folder)).walk_revisions()]
    assert tuple(sorted(all_of_them))[:-1] == OLDER


@pytest.mark.parametrize("revision", OLDER)
def test_an_older_ledger_keeps_its_rows_and_gets_this_release_s_tables(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    as_it_was(settings, revision, monkeypatch)
    assert revisions(settings) == [revision]
    engine = open_engine(settings)
    with engine.begin() as connection:
        before = fill(connection)
    assert all(len(found) == 3 for found in before.values())
    engine.dispose()

    prepare(settings)

    assert revisions(settings) > [revision]
    engine = open_engine(settings)
    with engine.connect() as connection:
        assert rows(connection) == before
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_change_of_tables_that_fails_leaves_the_older_ones(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_was(settings, "0001", monkeypatch)
    engine = open_engine(settings)
    with engine.begin() as connection:
        before = {index["name"] for index in inspect(connection).get_indexes("run")}
        # One of those that the newer release is about to make: it fails in the middle.
        connection.execute(text("CREATE INDEX ix_delivery_state_finished_at ON delivery (state)"))
    with pytest.raises(DatabaseError, match="ix_delivery_state_finished_at"):
        prepare(settings)
    assert revisions(settings) == ["0001"]
    with engine.begin() as connection:
        assert {index["name"] for index in inspect(connection).get_indexes("run")} == before
        connection.execute(text("DROP INDEX ix_delivery_state_finished_at"))
    engine.dispose()
    prepare(settings)
    assert revisions(settings) > ["0001"]
