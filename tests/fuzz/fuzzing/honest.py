"""A decent sender that goes on sending beside the hostile ones, and remembers every acknowledgement."""

from __future__ import annotations

import threading
from dataclasses import replace

from fuzzing.case import digest
from fuzzing.data_sets import SERIES, SOP_INSTANCE, STUDY, Base
from fuzzing.encoding import encoded
from fuzzing.talk import Connect, read_pdu, status_of
from fuzzing.upper_layer import (
    ASSOCIATE_AC,
    CT,
    DATA,
    EXPLICIT,
    RELEASE_RP,
    RELEASE_RQ,
    message,
    pdu,
    request,
    store_command,
)

TITLE = b"HONEST"
_EACH = 5
"""Instances of an association; too few to be analysed."""
_PAUSE = 0.2


class Honest(threading.Thread):
    """Sends until it is told to stop; whatever is not served ends it, and is in ``trouble``.

    Parameters
    ----------
    connect : callable
        Opens a connection to the node.
    right : Base
        What it sends, under other UIDs each time.

    Attributes
    ----------
    acknowledged : list of str
        What the node has promised to keep.
    trouble : str
        What it was refused.
    """

    def __init__(self, connect: Connect, right: Base) -> None:
        super().__init__(name="honest", daemon=True)
        self._connect = connect
        self._right = right
        self._enough = threading.Event()
        self.acknowledged: list[str] = []
        self.trouble = ""

    def run(self) -> None:
        number = 0
        while not self._enough.wait(_PAUSE) and not self.trouble:
            number += 1
            try:
                self.send(f"2.25.11{number}", _EACH)
            except OSError as error:
                self.trouble = f"association {number}: {type(error).__name__}"

    def finish(self) -> None:
        """Stop after the association that is open."""
        self._enough.set()
        self.join(60)
        if self.is_alive():
            self.trouble = self.trouble or "its last association does not end"

    def send(self, series: str, count: int) -> None:
        """Send the first slices of a series over an association of their own.

        Raises
        ------
        OSError
            It is not served.
        """
        with self._connect("plain") as connection:
            connection.sendall(request([(1, CT, (EXPLICIT.encode(),))], calling=TITLE))
            self._expect(read_pdu(connection)[0] == ASSOCIATE_AC, "is accepted")
            for k, slice_ in enumerate(self._right.slices[:count]):
                instance = f"{series}.{k}".encode()
                own = {SOP_INSTANCE: instance, STUDY: series.encode() + b".0.1", SERIES: series.encode()}
                data = encoded([replace(e, value=own.get(e.tag, e.value)) for e in slice_], EXPLICIT)
                connection.sendall(message(1, store_command(CT, instance, k + 1), data))
                kind, body = read_pdu(connection)
                self._expect(kind == DATA and status_of(body) == 0, "stores")
                self.acknowledged.append(digest(EXPLICIT, data))
            connection.sendall(pdu(RELEASE_RQ, bytes(4)))
            self._expect(read_pdu(connection)[0] == RELEASE_RP, "is released")

    def _expect(self, right: bool, what: str) -> None:
        if not right:
            self.trouble = f"after {len(self.acknowledged)} instances, it no longer {what}"
            raise ConnectionError
