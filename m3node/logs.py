"""Log lines, the same in every process: UTC time, level, the process's role, message, and what it was about.

To standard error and, where a folder is set, to files of bounded size; as text for people, or JSON for a collector.
One record is one line, whatever a peer called itself. The loggers of pynetdicom and pydicom stay shut at every level:
at debug level they print data sets, and with them patients. For the same reason an exception is named and not quoted.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from m3node.errors import M3NodeError
from m3node.log_file import BoundedFile

if TYPE_CHECKING:
    from m3node.settings import LogSettings

TALKERS = (
    *("pydicom", "pynetdicom", "highdicom", "PIL", "watchdog", "alembic", "sqlalchemy"),
    *("python_multipart", "multipart", "uvicorn.access"),
)
"""Other packages' loggers that may quote a data set, a row or a request, or that drown ours."""

LONGEST = 8192
"""A longer message is cut: what a peer sends must not fill the log."""

_about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039 - replaced, never changed


@contextmanager
def correlated(**ids: str) -> Iterator[None]:
    """Say in every line that this thread logs meanwhile what it was about.

    Parameters
    ----------
    **ids : str
        ``run``, ``study``, ``series``, ``destination``, ``association``: UIDs and names, nothing of a patient; empty
        ones are left out.
    """
    token = _about.set({**_about.get(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _about.reset(token)


@contextmanager
def about_nothing() -> Iterator[None]:
    """Log what this thread has to say beside its work: not about that."""
    token = _about.set({})
    try:
        yield
    finally:
        _about.reset(token)


def set_up(log: LogSettings, role: str) -> None:
    """Send every record of this process where the settings say, and nothing else anywhere.

    Parameters
    ----------
    log : LogSettings
        ``log`` of the settings.
    role : str
        What this process is, for example ``keeper``; stands in every line, and names the file.
    """
    formatter: logging.Formatter = _JsonLine(role) if log.format == "json" else _TextLine(role)
    file: logging.Handler | None = None
    trouble = ""
    if log.folder is not None:
        try:
            log.folder.mkdir(parents=True, exist_ok=True)
            path = log.folder / f"{role.replace(' ', '-')}.log"
            file = BoundedFile(path, max_bytes=int(log.max_mb * 1e6), files=log.files)
        except OSError as error:
            trouble = error.strerror or type(error).__name__
    _install(log.level, formatter, sys.stderr, file)
    if trouble:
        logging.getLogger(__name__).error("log.folder %s cannot be written: %s; logging here only", log.folder, trouble)
    # What nobody caught would be printed with its words.
    sys.excepthook = _uncaught
    threading.excepthook = lambda met: _uncaught(met.exc_type, met.exc_value, met.exc_traceback)


def to_terminal(role: str) -> None:
    """Let a command that is no process of the node say its warnings, on standard error."""
    _install("WARNING", _TextLine(role), sys.stderr, None)


def describe(error: BaseException) -> str:
    """Name an unexpected error by its type and places in the code.

    Its message is left out on purpose: it may quote a data set, and with it a patient.
    """
    places = [f"{_short(frame.filename)}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
    return f"{type(error).__name__} at {' > '.join(places) or 'an unknown place'}"


def _install(level: str, formatter: logging.Formatter, stream: TextIO, file: logging.Handler | None) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    if file is not None:
        handlers.append(file)
    for handler in handlers:
        handler.setFormatter(formatter)
        # The handler keeps them out, because a level does not last: pydicom sets its own when it is imported later.
        handler.addFilter(_is_heard)
    logging.basicConfig(level=level, handlers=handlers, force=True)
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if not sys.warnoptions:
        # pydicom's warnings quote the value they are about.
        warnings.simplefilter("ignore")


def _is_heard(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in TALKERS and record.name not in TALKERS


def _uncaught(_kind: object, error: BaseException | None, _trace: object) -> None:
    if error is None or isinstance(error, SystemExit):
        return
    # What we say ourselves names no patient.
    said = f": {error}" if isinstance(error, M3NodeError) else ""
    logging.getLogger(__name__).critical("an unexpected error was not caught: %s%s", describe(error), said)


class _Line(logging.Formatter):
    """What text and JSON have in common."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    @staticmethod
    def at(record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z"

    @staticmethod
    def message(record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}… (and {len(text) - LONGEST} characters more)"

    @staticmethod
    def error(record: logging.LogRecord) -> str:
        return describe(record.exc_info[1]) if record.exc_info and record.exc_info[1] is not None else ""


class _TextLine(_Line):
    def format(self, record: logging.LogRecord) -> str:
        message, error = self.message(record), self.error(record)
        about = " ".join(_unsaid(message, _about.get()))
        text = f"{message}{f' ({error})' if error else ''}{f' [{about}]' if about else ''}"
        return f"{self.at(record)} {record.levelname:<7} {self._role}: {_on_one_line(text)}"


class _JsonLine(_Line):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": self.at(record),
            "level": record.levelname,
            "role": self._role,
            "logger": record.name,
            "message": self.message(record),
        }
        if about := _about.get():
            line["ids"] = about
        if error := self.error(record):
            line["error"] = error
        return json.dumps(line)


def _unsaid(message: str, about: dict[str, str]) -> Iterator[str]:
    """Yield what a line for people still has to say that it is about.

    ``run=`` and ``study=`` are always there to be searched for. A series that the message or the name of the run has
    already would only be one more long number to read past, and a destination stands at the beginning of most lines.
    """
    said = f"{message} {about.get('run', '')}"
    for name, value in about.items():
        if name == "series" and re.search(rf"(?<![\w.]){re.escape(value)}(?!\w|\.\d)", said):
            continue
        if name == "destination" and message.startswith(f"{value}: "):
            continue
        yield f"{name}={value}"


def _on_one_line(text: str) -> str:
    """Write what cannot be printed as its escape: a line end that a peer has in its title begins no line of its own."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _short(file: str) -> str:
    """Return the last folder and the name of a source file: where it is installed is nobody's business."""
    return "/".join(Path(file).parts[-2:])
