"""The clerk: keeps files, engine and ledger in agreement."""

from __future__ import annotations

import logging
import threading
import time

from m3node.errors import DatabaseError
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.engine.reconcile import Reconciler
from m3node.layout import DataLayout
from m3node.settings import Settings

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How often it looks for new manifests."""
ALL_SECONDS = 60.0
"""How often it looks at everything."""


def run_clerk(settings: Settings, stop: threading.Event) -> None:
    """Reconcile at start, every minute, and whenever manifests come; until ``stop`` is set."""
    DataLayout(settings.data_dir).create()
    reconciler = Reconciler(settings, Dispatcher(settings))
    due = 0.0
    away = False
    while not stop.is_set():
        try:
            if time.monotonic() >= due:
                reconciler.all()
                due = time.monotonic() + ALL_SECONDS
            reconciler.new_manifests()
            away = False
        except DatabaseError as error:
            if not away:
                _log.error("%s; trying again", error)
            away = True
        except OSError as error:
            _log.error("the data folder cannot be read: %s", error.strerror)
        stop.wait(LOOK_SECONDS if not away else 1.0)
