"""Who may open an association, and for what."""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext

from m3node.intake.receive.contexts import presentation_contexts
from m3node.settings import Settings


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an association is rejected: result, source and reason of PS3.8 table 9-21, and words for the log."""

    result: int
    source: int
    reason: int
    words: str


@dataclass(frozen=True, slots=True)
class Admission:
    """Whom this node knows.

    Attributes
    ----------
    ae_title : str
        Its own title.
    max_associations : int
        Open ones in all.
    storers : frozenset of str
        AE titles that may store: ``listener.callers``.
    reporters : frozenset of str
        AE titles that may report storage commitment: those of the destinations that are asked for it. Nobody else's
        word on what is stored there counts.
    """

    ae_title: str
    max_associations: int
    storers: frozenset[str]
    reporters: frozenset[str]

    def refusal(self, *, calling: str, called: str, over_limit: bool) -> Refusal | None:
        """Decide whether to reject an association request.

        Parameters
        ----------
        calling, called : str
            AE titles of the request.
        over_limit : bool
            Whether as many associations as allowed are open already.

        Returns
        -------
        Refusal or None
            None to accept.
        """
        if called.strip() != self.ae_title:
            return Refusal(1, 1, 7, f"called AE title not recognized (this node is {self.ae_title})")
        if calling.strip() not in self.storers | self.reporters:
            return Refusal(1, 1, 3, "calling AE title not recognized (add it to listener.callers)")
        if over_limit:
            return Refusal(2, 3, 2, f"local limit exceeded (listener.max_associations = {self.max_associations})")
        return None

    def may_store(self, calling: str) -> bool:
        """Whether this caller may send instances."""
        return calling.strip() in self.storers

    def contexts(self, calling: str) -> list[PresentationContext]:
        """Return what is negotiated with this caller.

        What it may not do is refused here, context by context (PS3.8 table 9-18, abstract syntax not supported), so
        that it hears so before it sends a byte.
        """
        title = calling.strip()
        return presentation_contexts(store=title in self.storers, report=title in self.reporters)


def admission_of(settings: Settings) -> Admission:
    """Read from the settings whom this node knows."""
    return Admission(
        ae_title=settings.listener.ae_title,
        max_associations=settings.listener.max_associations,
        storers=frozenset(caller.ae_title for caller in settings.listener.callers),
        reporters=frozenset(
            destination.ae_title
            for destination in settings.destinations
            if destination.commitment and destination.ae_title is not None
        ),
    )
