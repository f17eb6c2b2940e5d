"""The C-STORE service class user: one association, many objects, each sent as the bytes that its file holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.association import associate
from m3node.delivery.status import Verdict, judge_status
from m3node.errors import DeliveryError

MAX_CONTEXTS = 128
"""Presentation context IDs are the odd numbers of 1 to 255 (PS3.8 9.3.2.2)."""

HANG_UP_SECONDS = 1.0


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


def _holds(contexts: Iterable[PresentationContext], syntax: Syntax) -> bool:
    return any(
        context.abstract_syntax == syntax.sop_class_uid and syntax.transfer_syntax_uid in context.transfer_syntax
        for context in contexts
    )


def _name(syntax: Syntax) -> str:
    return f"{UID(syntax.sop_class_uid).name} in {UID(syntax.transfer_syntax_uid).name}"
