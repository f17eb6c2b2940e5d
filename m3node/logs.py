"""Plain log lines to standard error, the same in every process: UTC time, level, the process's role, message.

The loggers of pynetdicom and pydicom stay shut at every level: at debug level they print data sets, and with them
patients.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
import warnings
from pathlib import Path

TALKERS = ("pydicom", "pynetdicom", "highdicom", "PIL", "watchdog", "alembic", "sqlalchemy")
"""Other packages' loggers that may quote a data set or a row, or that drown ours."""


class _UtcFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def set_up(level: str, role: str) -> None:
    """Send every record of this process to standard error.

    Parameters
    ----------
    level : str
        ``log.level`` of the settings.
    role : str
        What this process is, for example ``keeper``; stands in every line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_UtcFormatter(f"%(asctime)s %(levelname)-7s {role}: %(message)s"))
    # The handler keeps them out, because a level does not last: pydicom sets its own when it is imported later.
    handler.addFilter(lambda record: record.name.partition(".")[0] not in TALKERS)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if not sys.warnoptions:
        # pydicom's warnings quote the value they are about.
        warnings.simplefilter("ignore")


def describe(error: BaseException) -> str:
    """Name an unexpected error by its type and places in the code.

    Its message is left out on purpose: it may quote a data set, and with it a patient.
    """
    places = [f"{_short(frame.filename)}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
    return f"{type(error).__name__} at {' > '.join(places) or 'an unknown place'}"


def _short(file: str) -> str:
    """Return the last folder and the name of a source file: where it is installed is nobody's business."""
    return "/".join(Path(file).parts[-2:])
