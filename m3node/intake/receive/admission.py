"""Who may open an association, from where, for what, and how much of it.

Nobody may but who is known (deny by default): by AE title and, where the settings say so, by address, by coming over
TLS and by certificate. A stranger hears the same whatever is wrong, so that knocking does not show which titles, ranges
and certificates are right; the log and the audit trail say it exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

from pynetdicom.presentation import PresentationContext

from m3node.intake.receive.contexts import presentation_contexts
from m3node.intake.receive.peer import Peer, plain_address
from m3node.settings import Caller, Destination, ListenerSettings, Settings

MB = 1_000_000

_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses as IPv6 has them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an association is rejected.

    Attributes
    ----------
    result, source, reason : int
        PS3.8 table 9-21; all that the peer hears.
    words : str
        For the log and the audit trail.
    alert : str
        Which alert it is to the audit trail (`m3node.audit.events.SecurityAlert`); empty when it is the node that
        cannot.
    level : int
        Of the line in the log.
    """

    result: int
    source: int
    reason: int
    words: str
    alert: Literal["node authentication", "limit", ""] = ""
    level: int = logging.WARNING


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a caller may send at once, and how long be silent.

    Attributes
    ----------
    max_object_bytes : int
        Of an instance's data set.
    max_object_setting : str
        The setting that this comes from, and its value.
    maximum_pdu_size : int
        Bytes; announced to the caller, and enforced.
    idle_seconds : float
        Without traffic.
    counted : bool
        Whether instances a minute are limited, so that each has to be asked for.
    """

    max_object_bytes: int
    max_object_setting: str
    maximum_pdu_size: int
    idle_seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class Admitted:
    """A caller that is known.

    Attributes
    ----------
    title : str
        AE title.
    may_store, may_report : bool
        Whether it may send instances, and report storage commitment.
    limits : Limits
        Its limits within one association; those over all are the acceptor's.
    """

    title: str
    may_store: bool
    may_report: bool
    limits: Limits

    def contexts(self) -> list[PresentationContext]:
        """Return what is negotiated with this caller.

        What it may not do is refused here, context by context (PS3.8 table 9-18, abstract syntax not supported), so
        that it hears so before it sends a byte.
        """
        return presentation_contexts(store=self.may_store, report=self.may_report)


@dataclass(frozen=True, slots=True)
class Rule:
    """What has to be right besides the title.

    Attributes
    ----------
    setting : str
        Where it stands, for the log.
    addresses : tuple of network
        Where the peer may be; anywhere when empty.
    tls : bool
        Whether it has to come over TLS.
    fingerprints : frozenset of str
        One of which its certificate has to have; any when empty.
    """

    setting: str
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    tls: bool = False
    fingerprints: frozenset[str] = frozenset()

    def complaint(self, peer: Peer) -> str:
        """Return what is wrong with a peer, in words for the log; empty when nothing is."""
        if self.addresses and not within(peer.address, self.addresses):
            return f"its address is not in addresses of {self.setting}"
        if peer.tls is None:
            return f"it has to come over TLS ({self.setting})" if self.tls or self.fingerprints else ""
        if self.fingerprints and peer.tls.fingerprint not in self.fingerprints:
            shown = f"SHA-256 {peer.tls.fingerprint}" if peer.tls.fingerprint else "none"
            return f"its certificate ({shown}) is not in certificate_sha256 of {self.setting}"
        return ""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whom this node knows.

    Attributes
    ----------
    ae_title : str
        Its own title.
    storers : mapping of str to Rule
        By AE title, who may store: ``listener.callers``.
    reporters : mapping of str to tuple of Rule
        By AE title, who may report storage commitment: the destinations that are asked for it. Nobody else's word on
        what is stored there counts. One of the rules has to fit: two destinations may have the same title.
    limits : mapping of str to Limits
        By AE title, those of callers.
    limits_of_others : Limits
        Those of a reporter that is no caller.
    """

    ae_title: str
    storers: Mapping[str, Rule]
    reporters: Mapping[str, tuple[Rule, ...]]
    limits: Mapping[str, Limits]
    limits_of_others: Limits

    def admit(self, *, calling: str, called: str, peer: Peer) -> Admitted | Refusal:
        """Decide whether somebody who asks for an association is known.

        Parameters
        ----------
        calling, called : str
            AE titles of the request.
        peer : Peer
            Where it comes from.

        Returns
        -------
        Admitted or Refusal
            How many associations are open is not looked at here.
        """
        title = calling.strip()
        complaints = []
        may_store = may_report = False
        if (rule := self.storers.get(title)) is not None:
            complaint = rule.complaint(peer)
            may_store = not complaint
            complaints.append(complaint)
        # A title that is a caller's as well reports from where it may call.
        if not any(complaints) and (rules := self.reporters.get(title)):
            wrong = [rule.complaint(peer) for rule in rules]
            may_report = not all(wrong)
            complaints.append(wrong[0])
        if not may_store and not may_report:
            # The same for all: who is not known learns nothing of what is known here.
            why = next(filter(None, complaints), "add it to listener.callers")
            return Refusal(1, 1, 3, f"calling AE title not recognized ({why})", "node authentication")
        if called.strip() != self.ae_title:
            words = f"called AE title not recognized (this node is {self.ae_title})"
            return Refusal(1, 1, 7, words, "node authentication")
        return Admitted(title, may_store, may_report, self.limits.get(title, self.limits_of_others))


def within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether an address is in one of these ranges; an IPv4 address may be written as IPv6 on either side."""
    found = plain_address(address)
    return found is not None and any(found in _unmapped(network) for network in networks)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return network
    return ip_network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - _MAPPED.prefixlen))


def admission_of(settings: Settings) -> Admission:
    """Read from the settings whom this node knows."""
    listener = settings.listener
    reporters: dict[str, tuple[Rule, ...]] = {}
    for destination in settings.destinations:
        if destination.commitment and destination.ae_title is not None:
            rule = _rule_of_destination(listener, destination)
            reporters[destination.ae_title] = (*reporters.get(destination.ae_title, ()), rule)
    return Admission(
        ae_title=listener.ae_title,
        storers={caller.ae_title: _rule_of_caller(caller) for caller in listener.callers},
        reporters=reporters,
        limits={caller.ae_title: _limits(listener, caller) for caller in listener.callers},
        limits_of_others=_limits(listener, None),
    )


def _rule_of_caller(caller: Caller) -> Rule:
    return Rule(
        setting=f"listener.callers {caller.ae_title}",
        addresses=caller.addresses,
        tls=caller.tls,
        fingerprints=frozenset(caller.certificate_sha256),
    )


def _rule_of_destination(listener: ListenerSettings, destination: Destination) -> Rule:
    """Return what has to be right of who reports for a destination.

    A forged report would make the node believe that results are safe where they are not. So whom we call over TLS has
    to call us over it too, where the listener has it; and where callers show certificates, it shows one that we know
    it by. An archive that shows another one as a client than as a server has it named in its entry of
    ``listener.callers``, whose certificates count instead.
    """
    listening = listener.tls.certificate_file is not None
    shown = listening and listener.tls.client_certificates == "required"
    callers = (caller for caller in listener.callers if caller.ae_title == destination.ae_title)
    named_there = any(caller.certificate_sha256 for caller in callers)
    return Rule(
        setting=f"destination {destination.name}",
        tls=listening and destination.tls,
        fingerprints=frozenset(destination.certificate_sha256) if shown and not named_there else frozenset(),
    )


def _limits(listener: ListenerSettings, caller: Caller | None) -> Limits:
    object_mb, setting = listener.max_object_mb, "listener.max_object_mb"
    pdu_size, idle_seconds = listener.maximum_pdu_size, listener.idle_seconds
    counted = listener.instances_per_minute > 0
    if caller is not None:
        if caller.max_object_mb is not None and caller.max_object_mb < object_mb:
            object_mb, setting = caller.max_object_mb, "listener.callers.max_object_mb"
        pdu_size = min(pdu_size, caller.maximum_pdu_size or pdu_size)
        idle_seconds = min(idle_seconds, caller.idle_seconds or idle_seconds)
        counted = counted or caller.instances_per_minute is not None
    return Limits(
        max_object_bytes=int(object_mb * MB),
        max_object_setting=f"{setting} = {object_mb:g}",
        maximum_pdu_size=pdu_size,
        idle_seconds=idle_seconds,
        counted=counted,
    )
