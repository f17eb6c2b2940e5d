"""The C-STORE service class user: one association, many objects, each sent as the bytes that its file holds."""

from __future__ import annotations

import logging
import socket
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.presentation import PresentationContext, build_context

from m3node.delivery.address import Peer
from m3node.delivery.status import Verdict, judge_status
from m3node.errors import DeliveryError
from m3node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

_log = logging.getLogger(__name__)

MAX_CONTEXTS = 128
"""Presentation context IDs are the odd numbers of 1 to 255 (PS3.8 9.3.2.2)."""

HANG_UP_SECONDS = 1.0

_entities: weakref.WeakSet[AE] = weakref.WeakSet()
"""Our sides of associations."""


@dataclass(frozen=True, slots=True, order=True)
class Syntax:
    """What a presentation context is proposed for: a SOP class in the transfer syntax that the file has."""

    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Sendable:
    """A file that can be sent.

    Attributes
    ----------
    path : Path
        DICOM file with file meta information (PS3.10 7.1).
    sop_instance_uid : str
        Of the object in it.
    """

    path: Path
    syntax: Syntax
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds: for a connection and its acceptance, and for each answer."""

    connect: float = 10.0
    response: float = 30.0


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of one attempt.

    Attributes
    ----------
    status : int or None
        Status of the peer's answer; None when there was none.
    message : str
        The outcome in words.
    unknown : bool
        Whether the object was offered and nobody knows what the peer did with it.
    retry_after : float
        How long the peer asks to be left alone, in seconds.
    """

    verdict: Verdict
    status: int | None
    message: str
    unknown: bool = False
    retry_after: float = 0.0


def sendable(path: Path) -> Sendable:
    """Read from a file's meta information what its association must offer.

    Raises
    ------
    DeliveryError
        The file cannot be read, or is no DICOM file with complete file meta information.
    """
    try:
        meta = read_file_meta_info(path)
    except (InvalidDicomError, EOFError, ValueError, KeyError, NotImplementedError) as error:
        raise DeliveryError("not a DICOM file (PS3.10)", retryable=False) from error
    except OSError as error:
        raise DeliveryError(f"cannot be read: {error.strerror}", retryable=True) from error
    uids = [
        str(meta.get(keyword, ""))
        for keyword in ("MediaStorageSOPClassUID", "TransferSyntaxUID", "MediaStorageSOPInstanceUID")
    ]
    if not all(uids):
        raise DeliveryError("its file meta information lacks a UID", retryable=False)
    return Sendable(path=path, syntax=Syntax(uids[0], uids[1]), sop_instance_uid=uids[2])


class StoreAssociation:
    """An open association for C-STORE; a context manager that releases it.

    Parameters
    ----------
    peer : Peer
        Whom to call.
    calling_ae_title : str
        Our own AE title.
    syntaxes : iterable of Syntax
        Presentation contexts to propose, at most `MAX_CONTEXTS`.
    timeouts : Timeouts
        How long to wait.
    """

    def __init__(self, peer: Peer, calling_ae_title: str, syntaxes: Iterable[Syntax], timeouts: Timeouts) -> None:
        self._peer = peer
        self._title = calling_ae_title
        self._syntaxes = sorted(set(syntaxes))
        self._timeouts = timeouts
        self._association: Association | None = None
        self._message_id = 0

    def __enter__(self) -> Self:
        # Given a path, pynetdicom decodes and encodes the data set again unless this documented switch is on; only
        # the bytes whose digest was checked may leave. It concerns sending by path alone, which is done here only.
        _config.STORE_SEND_CHUNKED_DATASET = True
        contexts = [build_context(item.sop_class_uid, item.transfer_syntax_uid) for item in self._syntaxes]
        self._association = associate(self._peer, self._title, contexts, self._timeouts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        association = self._association
        if association is None:
            return
        try:
            if kind is None and association.is_established:
                association.release()
            elif association.is_established:
                # Cut off in the middle, by Ctrl-C for one: the peer is told, but not waited for.
                association.abort(block=False)
                association.join(HANG_UP_SECONDS)
        finally:
            association.dul.kill_dul()

    @property
    def is_open(self) -> bool:
        """Whether another object can be sent."""
        return self._association is not None and self._association.is_established

    def send(self, item: Sendable) -> Sent:
        """Send one object and wait for the answer.

        Parameters
        ----------
        item : Sendable
            Its syntax is among those that the association proposed.

        Returns
        -------
        Sent
            Without an answer, or with an empty one, the verdict is `Verdict.AGAIN` and the association is closed:
            nobody knows what the peer did with the object, and a late answer must not be taken for the next one's.
        """
        association = self._association
        # Asked first: a peer that accepts none of the contexts has no open association either.
        if association is not None and _holds(association.rejected_contexts, item.syntax):
            return Sent(Verdict.REFUSED, None, f"the peer does not accept {_name(item.syntax)}")
        if association is None or not association.is_established:
            return Sent(Verdict.AGAIN, None, "the association was lost")
        self._message_id = self._message_id % 65535 + 1
        try:
            answer: Dataset = association.send_c_store(item.path, msg_id=self._message_id)
        except RuntimeError:
            return Sent(Verdict.AGAIN, None, "the association was lost")
        except (AttributeError, ValueError, OSError) as error:
            verdict = Verdict.REFUSED
            if isinstance(error, OSError):
                # The file is read only now. The trouble may pass; but the command may have gone without its data set.
                verdict = Verdict.AGAIN
                association.abort()
            return Sent(verdict, None, f"cannot be sent: {type(error).__name__}")
        if "Status" not in answer:
            if association.is_established:
                association.abort()
            return Sent(Verdict.AGAIN, None, "no answer, or one without a status", unknown=True)
        verdict, words = judge_status(int(answer.Status))
        return Sent(verdict, int(answer.Status), words)


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
        There is no connection, no answer, or the association is rejected; trying again may help, once the network or
        the peer's configuration is put right.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.connection_timeout = timeouts.connect
    ae.acse_timeout = timeouts.connect
    ae.dimse_timeout = timeouts.response
    ae.network_timeout = timeouts.response + 10.0

    connected = False

    def tune(event: evt.Event) -> None:
        nonlocal connected
        connected = True
        transport = event.assoc.dul.socket.socket  # type: ignore[union-attr] # open, as the event says
        # Without it each object's last segment waits for an acknowledgement: half the speed.
        transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[union-attr]
        # A peer that stops reading must end in an error, not in a thread that blocks in send for ever.
        transport.settimeout(timeouts.response)  # type: ignore[union-attr]

    _entities.add(ae)
    try:
        association = ae.associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, tune)],
        )
    except OSError as error:  # the host's name does not resolve
        raise DeliveryError(f"no connection to {peer}: {error.strerror}", retryable=True) from error
    except KeyboardInterrupt:
        _hang_up({ae})
        raise
    except UnicodeError as error:  # it cannot even be looked up
        raise DeliveryError(
            f"no connection to {peer}: {peer.host!r} cannot be a host's name", retryable=True
        ) from error
    _keep_answers_for_who_waits(association)
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        raise DeliveryError(f"{peer} rejects the association: {answer.reason_str}", retryable=True)
    if association.is_established or answer is not None:
        return association
    if connected:
        raise DeliveryError(f"{peer} does not answer the association request as a DICOM peer", retryable=True)
    raise DeliveryError(f"no connection to {peer}: {_why(peer, timeouts)}", retryable=True)


def hang_up_all() -> None:
    """Cut every association of this process that is still open: what they were sending is sent again some day.

    pynetdicom's provider threads are not daemons: one that waits for a peer keeps a process from ending.
    """
    _hang_up(set(_entities))


def _hang_up(entities: set[AE]) -> None:
    for thread in threading.enumerate():
        if isinstance(thread, DULServiceProvider) and thread.assoc.ae in entities:
            thread.kill_dul()


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


def _why(peer: Peer, timeouts: Timeouts) -> str:
    """Say what pynetdicom only logs: why the connection failed."""
    try:
        with socket.create_connection((peer.host, peer.port), timeout=timeouts.connect):
            return "the connection was lost"
    except TimeoutError:
        return "the host does not answer"
    except OSError as error:
        return error.strerror or type(error).__name__


def _holds(contexts: Iterable[PresentationContext], syntax: Syntax) -> bool:
    return any(
        context.abstract_syntax == syntax.sop_class_uid and syntax.transfer_syntax_uid in context.transfer_syntax
        for context in contexts
    )


def _name(syntax: Syntax) -> str:
    return f"{UID(syntax.sop_class_uid).name} in {UID(syntax.transfer_syntax_uid).name}"
