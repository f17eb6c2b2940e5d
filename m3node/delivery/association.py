"""Associations that we open: for C-STORE, C-ECHO and storage commitment."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.transport import Transport
from m3node.errors import DeliveryError, UntrustedPeerError
from m3node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION


class Entity(AE):
    """Our side of one association.

    Attributes
    ----------
    transport : Transport or None
        The connection, once there is to be one.
    """

    def __init__(self, ae_title: str, peer: Peer, timeouts: Timeouts) -> None:
        super().__init__(ae_title=ae_title)
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION
        self.acse_timeout = timeouts.connect
        self.dimse_timeout = timeouts.response
        self.network_timeout = timeouts.response + 10.0
        self.transport: Transport | None = None
        self._peer = peer
        self._timeouts = timeouts

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: object) -> Transport:
        # pynetdicom has no other place to bring a socket of one's own.
        self.transport = Transport(assoc, address, self._peer, self._timeouts)
        return self.transport


_entities: weakref.WeakSet[Entity] = weakref.WeakSet()


def associate(
    peer: Peer, calling_ae_title: str, contexts: list[PresentationContext], timeouts: Timeouts
) -> Association:
    """Open an association.

    Returns
    -------
    Association
        Open; or closed already, because the peer accepted none of its contexts or hung up at once.

    Raises
    ------
    DeliveryError
        There is no connection, there is no answer, or the association is rejected; trying again may help, once the
        network or a configuration is put right. `UntrustedPeerError`: the peer is not who it should be.
    """
    entity = Entity(calling_ae_title, peer, timeouts)
    _entities.add(entity)
    try:
        association = entity.associate(peer.host, peer.port, contexts=contexts, ae_title=peer.ae_title)
    except OSError as error:  # the host's name does not resolve
        raise DeliveryError(f"no connection to {peer}: {error.strerror}", retryable=True) from error
    except KeyboardInterrupt:
        _hang_up({entity})
        raise
    except UnicodeError as error:  # it cannot even be looked up
        raise DeliveryError(
            f"no connection to {peer}: {peer.host!r} cannot be a host's name", retryable=True
        ) from error
    _keep_answers_for_who_waits(association)
    answer = association.acceptor.primitive or _unheard(association)
    if answer is not None and answer.result:
        raise DeliveryError(f"{peer} rejects the association: {answer.reason_str}", retryable=True)
    if association.is_established or answer is not None:
        return association
    transport = entity.transport
    if transport is not None and transport.trouble:
        kind = UntrustedPeerError if transport.untrusted else DeliveryError
        raise kind(f"no connection to {peer}: {transport.trouble}", retryable=True)
    raise DeliveryError(f"{peer} does not answer the association request as a DICOM peer", retryable=True)


def hang_up_all() -> None:
    """Cut every association of this process that is still open: what they were sending is sent again some day.

    pynetdicom's provider threads are not daemons: one that waits for a peer keeps a process from ending.
    """
    _hang_up(set(_entities))


def _hang_up(entities: set[Entity]) -> None:
    for thread in threading.enumerate():
        if isinstance(thread, DULServiceProvider) and thread.assoc.ae in entities:
            thread.kill_dul()


def _unheard(association: Association) -> A_ASSOCIATE | None:
    """Return an answer that pynetdicom has got and not looked at.

    A peer that rejects and hangs up before pynetdicom's thread wakes, which waits for the connection, looks to it like
    one that could not be connected to.
    """
    answer = association.dul.receive_pdu(wait=False)
    return answer if isinstance(answer, A_ASSOCIATE) else None


def _keep_answers_for_who_waits(association: Association) -> None:
    """Let nobody but a ``send_c_*`` that waits for it take a message off the association's queue.

    pynetdicom's reactor thread polls the same queue for requests of the peer. ``send_c_*`` pauses it, but a reactor
    that was let go a moment before still says that it is paused: now and then, on a busy machine, it takes the answer
    and drops it, and the sender waits for its whole timeout. A peer has no request to make of a storage SCU, so the
    reactor, which never blocks, finds nothing.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        return take(block=True) if block else (None, None)

    association.dimse.get_msg = get_msg  # type: ignore[method-assign]
