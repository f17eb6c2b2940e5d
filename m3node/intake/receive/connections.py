"""The acceptor's list of connections: which wait, which are associations, and whether there may be one more.

A connection waits until its association is admitted. Those that wait take no room from associations, and when there are
too many of them the oldest from the address that has most of them gives way: whoever opens connections and asks for
nothing, however many and however fast, shuts nobody else out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Literal

from m3node.audit.events import Node
from m3node.intake.receive.peer import plain_address

Grant = Literal["granted", "all", "caller", "gone"]
"""``granted``; ``all`` or ``caller`` when as many as allowed are open in all, or of this title; ``gone`` when the
connection is not there any more."""


@dataclass(slots=True)
class _Connection:
    owner: int
    address: str
    title: str | None = None


class Connections:
    """Counts of one acceptor over all its receivers.

    Parameters
    ----------
    max_waiting : int
        Connections in all that have not been admitted.
    max_associations : int
        Admitted ones in all.
    of_title : mapping of str to int
        Admitted ones of an AE title, where it has a limit of its own.
    """

    def __init__(self, *, max_waiting: int, max_associations: int, of_title: Mapping[str, int]) -> None:
        self._max_waiting = max_waiting
        self._max_associations = max_associations
        self._of_title = of_title
        self._connections: dict[int, _Connection] = {}
        self._waiting: dict[str, dict[int, None]] = {}  # by neighbourhood, the oldest first
        self._open: Counter[str] = Counter()
        self._of_owner: Counter[int] = Counter()
        self._next = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._connections) - self.associations

    @property
    def associations(self) -> int:
        """How many are admitted."""
        return self._open.total()

    def add(self, owner: int, address: str) -> int:
        """Add a connection that waits; return its number, which no other one ever has.

        Parameters
        ----------
        owner : int
            The receiver that serves it.
        address : str
            Of the peer.
        """
        number = self._next
        self._next += 1
        self._connections[number] = _Connection(owner, address)
        self._waiting.setdefault(_neighbourhood(address), {})[number] = None
        self._of_owner[owner] += 1
        return number

    def displaced(self) -> tuple[int, int] | None:
        """Take one that waits off the list when there is no room for one more to wait.

        Returns
        -------
        tuple of int or None
            Its number and its owner, who has to close it.
        """
        if self.waiting < self._max_waiting:
            return None
        most = max(self._waiting.values(), key=lambda numbers: (len(numbers), -next(iter(numbers))))
        number = next(iter(most))
        owner = self._connections[number].owner
        self.remove(number)
        return number, owner

    def admit(self, number: int, title: str) -> Grant:
        """Make an association of a connection that waits, if there may be one more."""
        connection = self._connections.get(number)
        if connection is None or connection.title is not None:
            return "gone"
        if self.associations >= self._max_associations:
            return "all"
        if (most := self._of_title.get(title)) is not None and self._open[title] >= most:
            return "caller"
        connection.title = title
        self._stop_waiting(number, connection.address)
        self._open[title] += 1
        return "granted"

    def of(self, number: int) -> Node | None:
        """Whose association it is; None when it is none, or not there any more."""
        connection = self._connections.get(number)
        if connection is None or connection.title is None:
            return None
        return Node(connection.title, connection.address)

    def remove(self, number: int) -> None:
        """Take a connection off the list; one that is off already may be named again."""
        connection = self._connections.pop(number, None)
        if connection is None:
            return
        self._of_owner[connection.owner] -= 1
        if connection.title is None:
            self._stop_waiting(number, connection.address)
        else:
            self._open[connection.title] -= 1
            if not self._open[connection.title]:
                del self._open[connection.title]

    def _stop_waiting(self, number: int, address: str) -> None:
        place = _neighbourhood(address)
        numbers = self._waiting[place]
        del numbers[number]
        if not numbers:
            del self._waiting[place]

    def remove_owner(self, owner: int) -> int:
        """Take all connections of a receiver that is gone off the list; return how many of them were admitted."""
        numbers = [number for number, connection in self._connections.items() if connection.owner == owner]
        admitted = sum(self._connections[number].title is not None for number in numbers)
        for number in numbers:
            self.remove(number)
        return admitted

    def load(self, owner: int) -> int:
        """How many connections a receiver has."""
        return self._of_owner[owner]


def _neighbourhood(address: str) -> str:
    """Whose an address is: a machine may take as many IPv6 addresses of its link (/64) as it likes."""
    found = plain_address(address)
    return f"{int(found) >> 64:x}::/64" if isinstance(found, IPv6Address) else str(found or address)
