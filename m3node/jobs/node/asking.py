"""Asks the ledger for those who cannot wait: a monitoring system asks again and again, and gives up after seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from m3node.jobs.ledger.database import describe_url, ledger_url
from m3node.jobs.node.glance import Told
from m3node.settings import Settings

PATIENCE_SECONDS = 3.0
"""How long an answer is waited for: a monitoring system takes it for none after ten, as a rule."""
SHORT_SECONDS = 0.25
"""How long when the last one did not come in time: who asks then is told so at once, and is not held up as well."""


class Asking:
    """One question to the ledger at a time, whoever asks and however long a database that is away takes over it.

    A question that hangs goes on in its thread, and there is no second one beside it.

    Parameters
    ----------
    settings : Settings
        The tree.
    question : callable
        Asks, as `m3node.jobs.node.glance.ask`.
    """

    def __init__(self, settings: Settings, question: Callable[[], Told]) -> None:
        self._settings = settings
        self._question = question
        self._lock = threading.Lock()
        self._open: Future[Told] | None = None
        self._late = False

    def __call__(self) -> Told:
        """Return what the ledger says, or that it says nothing.

        Raises
        ------
        ConfigError
            As of the question.
        """
        with self._lock:
            if self._open is None:
                self._open = Future()
                threading.Thread(target=self._ask, args=(self._open,), name="ledger", daemon=True).start()
            answer, patience = self._open, SHORT_SECONDS if self._late else PATIENCE_SECONDS
        self._late = not wait([answer], patience).done
        if not self._late:
            return answer.result()
        url = describe_url(ledger_url(self._settings))
        return Told(trouble=f"the database {url} cannot be used: it does not answer within {PATIENCE_SECONDS:g} s")

    def _ask(self, answer: Future[Told]) -> None:
        try:
            told = self._question()
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
            self._closed()
            answer.set_exception(error)
        else:
            self._closed()
            answer.set_result(told)

    def _closed(self) -> None:
        with self._lock:
            self._open = None
