"""Brings the engine up in a process that runs jobs or deliveries, and down again."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Sequence

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from sqlalchemy import Engine

from m3node.jobs.engine import names
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger import database
from m3node.settings import Settings

_log = logging.getLogger(__name__)

QUIET_SECONDS = 30.0
"""While the database is away, each thread of the engine warns at every poll; one such line in so long is enough."""

_engines: list[Engine] = []


_TRACEBACK = "Traceback (most recent call last)"
_ERROR = re.compile(r"(?:\w+\.)*(\w*(?:Error|Exception|Timeout|Failure))(?::|$)")
"""The line of a traceback that names the error, and no other word of it."""


class _Plain(logging.Filter):
    """Lets the engine say what happens, but neither what an exception quotes nor the same thing every moment."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is not None:
            record.msg = f"{_first_line(record)} ({record.exc_info[0].__name__})"
        else:
            record.msg = _first_line(record)
        record.args, record.exc_info, record.exc_text = (), None, None
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        kind = str(record.msg)[:40]
        if now - self._said.get(kind, -QUIET_SECONDS) < QUIET_SECONDS:
            return False
        self._said[kind] = now
        return True


def _first_line(record: logging.LogRecord) -> str:
    """Return what it says, and of a traceback that it quotes the name of the error."""
    first, *more = record.getMessage().splitlines() or [""]
    said, traced, _ = first.partition(_TRACEBACK)
    if not traced:
        return first
    errors = [found[1] for line in more if (found := _ERROR.match(line))]
    return f"{said.rstrip(': ')} ({errors[-1] if errors else 'an error'})"


def prepare(settings: Settings) -> None:
    """Make everything ready that a role needs of the databases; again and at the same time is harmless.

    Raises
    ------
    ConfigError
        A newer m3node has changed the tables.
    DatabaseError
        The database cannot be reached, or refuses.
    """
    quieten()
    database.prepare(settings)
    dispatcher = Dispatcher(settings)
    try:
        dispatcher.register_queues()
    finally:
        dispatcher.close()


def launch(settings: Settings, *, executor_id: str, queues: Sequence[str]) -> None:
    """Let this process take work from its queues, and first what the same executor had begun and not ended.

    The workflows of these queues are registered before, by importing their module: one whose name is not known here
    would be taken and then lie for ever. Only one process at a time may be an executor: the caller holds its lock.

    Parameters
    ----------
    settings : Settings
        Say where the database is.
    executor_id : str
        `names.slot_executor` or `names.DELIVER_EXECUTOR`.
    queues : sequence of str
        `names.JOBS` or `names.DELIVERIES`.
    """
    quieten()
    engine = database.open_engine(settings, "engine")
    _engines.append(engine)
    config: DBOSConfig = {
        "name": names.APPLICATION,
        "application_version": names.APPLICATION_VERSION,
        "executor_id": executor_id,
        "serializer": DBOSPortableJSONSerializer(),
        "system_database_engine": engine,
        "run_migrations": False,
        "log_level": "WARNING",
        "enable_otlp": False,
        "use_listen_notify": False,
        "scheduler_polling_interval_sec": 3600.0,
    }
    DBOS(config=config)
    DBOS.listen_queues(queues)
    DBOS.launch()


def stop(seconds: float) -> None:
    """Take no more work, and wait so long for what is at hand; what is not finished is begun again later."""
    DBOS.destroy(workflow_completion_timeout_sec=math.ceil(seconds))
    while _engines:
        _engines.pop().dispose()


def quieten() -> None:
    """Send what the engine says through our log: no handler of its own, no exception's words."""
    log = logging.getLogger("dbos")
    log.setLevel(logging.WARNING)
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    if not any(isinstance(item, _Plain) for item in log.filters):
        log.addFilter(_Plain())
