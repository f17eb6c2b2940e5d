"""Which database: SQLite files below the data folder, or one PostgreSQL for all machines; and its tables, made ready.

The engine's tables and the ledger's are apart: two files on SQLite, two schemas on PostgreSQL (``dbos``, ``m3node``).
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from m3node.errors import ConfigError, DatabaseError
from m3node.layout import DataLayout
from m3node.settings import Settings

SCHEMA = "m3node"
"""Schema of the ledger's tables in PostgreSQL."""

READ_ONLY = "m3node_read_only"
"""Execution option of connections that only read, and so need not wait for a writer."""

BUSY_SECONDS = 30
"""How long a writer waits for another one before it fails."""
CONNECT_SECONDS = 5
_PASSING = (
    "database or disk is full",
    "disk I/O error",
    "attempt to write a readonly database",
    "unable to open database file",
)
"""What SQLite says of trouble that a person ends: of these DBOS knows only a lost connection as worth waiting for."""
_MIGRATION_LOCK = 0x6D336E6F6465
"""Key of the advisory lock: any number that nobody else's is."""


def ledger_url(settings: Settings) -> URL:
    """Return where the ledger is.

    Raises
    ------
    ConfigError
        ``database_url`` is no PostgreSQL URL, or its file cannot be read; the message holds no password.
    """
    given = _given_url(settings)
    if given is not None:
        return given
    return URL.create("sqlite", database=str(DataLayout(settings.data_dir.absolute()).database / "ledger.sqlite"))


def engine_url(settings: Settings) -> str:
    """Return where the engine's tables are, its password in it: for the engine only, never for a message."""
    given = _given_url(settings)
    if given is None:
        path = DataLayout(settings.data_dir.absolute()).database / "engine.sqlite"
        given = URL.create("sqlite", database=str(path))
    return given.render_as_string(hide_password=False)


def describe_url(url: URL) -> str:
    """Name a database for a message or a log: user, host and name, no password and no other parameter."""
    return url.set(query={}).render_as_string(hide_password=True)


def open_engine(settings: Settings, role: Literal["ledger", "engine"] = "ledger") -> Engine:
    """Return SQLAlchemy's engine on the ledger or on the job engine's tables; it connects when it is used first.

    Its exceptions do not quote the values of a statement. On the ledger a transaction is begun for writing, unless the
    execution option `READ_ONLY` is set: on SQLite a reader that turns writer is refused at once, and does not wait its
    turn.
    """
    if role == "engine":
        url = make_url(engine_url(settings))
        return _open_sqlite_for_jobs(url) if url.get_backend_name() == "sqlite" else _open_postgresql(url)
    url = ledger_url(settings)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    engine = _open_postgresql(url)

    @event.listens_for(engine, "connect", insert=True)
    def _connected(connection: Any, _entry: ConnectionPoolEntry) -> None:
        # Outside of a transaction, whose end would take it back.
        connection.autocommit = True
        connection.execute(f"SET search_path TO {SCHEMA}")
        connection.execute(f"SET lock_timeout TO '{BUSY_SECONDS}s'")
        connection.autocommit = False

    return engine


def prepare(settings: Settings) -> None:
    """Make the database files, and bring the ledger's and the engine's tables to this release.

    Every role calls it before anything else; again and at the same time is harmless.

    Raises
    ------
    ConfigError
        A newer m3node has changed the tables; this one must not write to them.
    DatabaseError
        The database cannot be reached, or refuses.
    """
    from dbos import DBOS  # noqa: PLC0415 - who only asks the ledger need not wait for it

    layout = DataLayout(settings.data_dir.absolute())
    layout.create()
    url = ledger_url(settings)
    engine = open_engine(settings)
    try:
        if url.get_backend_name() == "sqlite":
            for name in ("ledger.sqlite", "engine.sqlite"):
                _make_file(str(layout.database / name))
        with _migrating(engine, layout) as connection:
            _migrate(connection)
        logging.getLogger("dbos").addHandler(logging.NullHandler())  # else it writes to the terminal by itself
        DBOS.migrate(engine_url(settings))
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise unusable(url, error) from error
    finally:
        engine.dispose()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Read in one transaction, for which no writer waits.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    try:
        with engine.execution_options(**{READ_ONLY: True}).connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unusable(engine.url, error) from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Write in one transaction.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unusable(engine.url, error) from error


def unusable(url: URL, error: Exception) -> DatabaseError:
    """Return the error of a database that cannot be reached or refuses; its first line says why."""
    cause = getattr(error, "orig", None) or error
    why = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return DatabaseError(f"the database {describe_url(url)} cannot be used: {why}")


def _given_url(settings: Settings) -> URL | None:
    """Return the database that the settings name, None where they name none."""
    given = settings.database_url.get_secret_value().strip()
    if settings.database_url_file is not None:
        try:
            given = settings.database_url_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"database_url_file {settings.database_url_file} cannot be read: {why}") from error
        if not given:
            raise ConfigError(f"database_url_file {settings.database_url_file} is empty; write the URL into it")
    if not given:
        return None
    wanted = "postgresql://user:password@host/name, or nothing for SQLite files below data_dir"
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # Not chained: the cause quotes the URL, and with it a password.
        raise ConfigError(f"database_url is not a URL; set {wanted}") from None
    if url.drivername not in {"postgresql", "postgresql+psycopg", "postgres"}:
        raise ConfigError(f"database_url names {url.drivername}; set {wanted}")
    if not url.database:
        raise ConfigError(f"database_url names no database; set {wanted}")
    return url.set(drivername="postgresql+psycopg")


def _open_sqlite(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions are begun below, and not by the driver's guess
        connection.execute("PRAGMA journal_mode=WAL")
        # What a power cut takes from the ledger is made again from the files.
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _open_sqlite_for_jobs(url: URL) -> Engine:
    """Open it as DBOS would, but so that it waits out a full disk as it waits out a database that is away."""
    engine = create_engine(url, hide_parameters=True, pool_size=5, max_overflow=0, pool_timeout=BUSY_SECONDS)

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in (f"busy_timeout={1000 * BUSY_SECONDS}", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "handle_error")
    def _failed(context: ExceptionContext) -> None:
        if any(text in str(context.original_exception) for text in _PASSING):
            context.is_disconnect = True

    return engine


def _open_postgresql(url: URL) -> Engine:
    return create_engine(
        url,
        hide_parameters=True,
        pool_size=5,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": 1000 * BUSY_SECONDS,
            "application_name": "m3node",
        },
    )


def _make_file(path: str) -> None:
    """Make a SQLite file that several processes can use from its first moment on."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


@contextmanager
def _migrating(engine: Engine, layout: DataLayout) -> Iterator[Connection]:
    """Connect as the only one who changes tables."""
    if engine.dialect.name == "sqlite":
        with (layout.locks / "migration.lock").open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            with engine.begin() as connection:
                yield connection
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        # Asked first: who may use a schema that an administrator made may not be allowed to make one.
        if connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}) is None:
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        yield connection


def _migrate(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - who only asks the ledger need not wait for it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "m3node.jobs.ledger:migrations")
    config.attributes["connection"] = connection
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if newer := set(MigrationContext.configure(connection).get_current_heads()) - known:
        raise ConfigError(
            f"a newer m3node has changed the ledger's tables (to {', '.join(sorted(newer))}); run that release, or let "
            "this one begin with an empty ledger, which it fills from the files"
        )
    command.upgrade(config, "head")
