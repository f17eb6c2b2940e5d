"""What an admitted caller hears to instances (C-STORE) and storage commitment reports (N-EVENT-REPORT)."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import cast

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext

from m3node.audit.events import Node, SecurityAlert
from m3node.errors import InputRejected
from m3node.faults import fault_point
from m3node.intake.receive import status as receive_status
from m3node.intake.receive.admission import Admitted
from m3node.intake.receive.association import OpenLease
from m3node.intake.receive.commitment import EVENT_ALL_STORED, EVENT_SOME_FAILED, keep_report, parse_report
from m3node.intake.receive.contexts import COMMITMENT, STORAGE
from m3node.intake.receive.desk import Desk
from m3node.intake.receive.dimse import ReportRequest, StoreRequest
from m3node.intake.receive.gathered import TooLargeError
from m3node.intake.receive.identity import identify
from m3node.intake.receive.shared import Shared
from m3node.intake.receive.status import Answer
from m3node.intake.uid import is_uid
from m3node.layout import DataLayout
from m3node.metrics import counting

LOGGER = logging.getLogger(__name__)

REPORT_BYTES = 4 * 1024 * 1024
"""Of a report's event information, which is read in memory: some 20 000 instances; each of our requests has one."""

_STORAGE_CLASSES = frozenset(sop.uid for sop in STORAGE)


class Answers:
    """Answers the requests of one association.

    Parameters
    ----------
    shared : Shared
        Of the process.
    admitted : Admitted
        Who sends.
    address : str
        Where from.
    lease : OpenLease or None
        That of the association; None when it may not store.
    desk : Desk
        Asked for each instance, where instances a minute are limited.

    Attributes
    ----------
    counts : Counter of str
        Instances by what became of them: ``new``, ``duplicate``, ``revision``, ``refused``.
    """

    def __init__(
        self, shared: Shared, admitted: Admitted, *, address: str, lease: OpenLease | None, desk: Desk
    ) -> None:
        self._spool = shared.spool
        self._layout = DataLayout(shared.spool.data_root)
        self._lines = shared.lines
        self._trail = shared.trail
        self._admitted = admitted
        self._title = admitted.title
        self._node = Node(admitted.title, address)
        self._lease = lease
        self._desk = desk
        self._hurry = threading.Event()
        self.counts: Counter[str] = Counter()

    def hurry(self) -> None:
        """Hold nothing back any more: the association is to end. From another thread."""
        self._hurry.set()

    def store(self, request: StoreRequest, context: PresentationContext) -> Answer:
        """Store an instance."""
        answer = self._over_limit(request)
        if answer is not None:
            self.counts["refused"] += 1
            counting.instance_received("limit")
            # Without its UID: who sends too much does so a thousand times.
            self._lines.say(
                logging.WARNING, f"refused instances from {self._title} with status 0xA700: {answer.comment}"
            )
            return answer
        answer = self._store(request, cast(UID, context.abstract_syntax), context.transfer_syntax[0])
        if answer.status != receive_status.SUCCESS:
            self.counts["refused"] += 1
            counting.instance_received("refused")
            uid = request.sop_instance_uid
            LOGGER.warning(
                "refused instance %s from %s with status 0x%04X: %s",
                uid if is_uid(uid) else "(no valid UID)",
                self._title,
                answer.status,
                answer.comment,
            )
        return answer

    def _over_limit(self, request: StoreRequest) -> Answer | None:
        if isinstance(request.trouble, TooLargeError):
            words = str(request.trouble.strerror)
            self._trail.record(SecurityAlert("limit", self._node, f"an instance is {words}"))
            return Answer(receive_status.OUT_OF_RESOURCES, words)
        if not self._admitted.limits.counted:
            return None
        turn = self._desk.turn()
        if turn.seconds is None:
            words = f"more than {turn.setting}" if turn.setting else "the node is too busy to say when it may come"
            return Answer(receive_status.OUT_OF_RESOURCES, words)
        if turn.seconds:
            # The sender waits for its answer, and so sends no faster. Idle time is only reckoned while we wait for it.
            self._hurry.wait(turn.seconds)
        return None

    def _store(self, request: StoreRequest, abstract_syntax: str, transfer_syntax: str) -> Answer:
        if request.sop_class_uid != abstract_syntax:
            return Answer(receive_status.CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context")
        if abstract_syntax not in _STORAGE_CLASSES:
            return Answer(receive_status.CLASS_NOT_SUPPORTED, "SOP class is not one of storage")
        try:
            if request.trouble is not None:
                raise request.trouble
            identity = identify(request.data, transfer_syntax)
            for kind, own, commanded in (
                ("SOP class", identity.sop_class_uid, request.sop_class_uid),
                ("SOP instance", identity.sop_instance_uid, request.sop_instance_uid),
            ):
                if own != commanded:
                    return Answer(receive_status.DOES_NOT_MATCH, f"command and data set disagree on the {kind}")
            stored = self._spool.store(identity, request.data, transfer_syntax_uid=transfer_syntax, sender=self._title)
            # Named before the answer: once the sender hears of success, the keeper can know of the instance.
            path = str(stored.path.relative_to(self._spool.data_root))
            cast(OpenLease, self._lease).append(
                path, stored.status, urgent=request.urgent, sop_class=identity.sop_class_uid
            )
        except InputRejected as error:
            return receive_status.of_rejection(error)
        except OSError as error:
            return receive_status.of_disk(error)
        self.counts[stored.status] += 1
        counting.instance_received(stored.status, 0 if stored.status == "duplicate" else len(request.data))
        if stored.status == "revision":
            LOGGER.warning("instance %s was stored before with other bytes: kept beside", identity.sop_instance_uid)
        return Answer(receive_status.SUCCESS)

    def report(self, request: ReportRequest, context: PresentationContext) -> Answer:
        """Keep a storage commitment report."""
        answer = self._report(request, context)
        if answer.status != receive_status.SUCCESS:
            LOGGER.warning(
                "refused a report from %s with status 0x%04X: %s", self._title, answer.status, answer.comment
            )
        return answer

    def _report(self, request: ReportRequest, context: PresentationContext) -> Answer:
        if not request.sop_class_uid == context.abstract_syntax == COMMITMENT.uid:
            return Answer(receive_status.NO_SUCH_CLASS, "not an event of Storage Commitment Push Model")
        if request.event_type not in (EVENT_ALL_STORED, EVENT_SOME_FAILED):
            return Answer(receive_status.NO_SUCH_EVENT_TYPE, f"no event type {request.event_type}")
        try:
            if isinstance(request.trouble, TooLargeError) or len(request.data) > REPORT_BYTES:
                return Answer(receive_status.INVALID_ARGUMENT, f"longer than {REPORT_BYTES} bytes")
            if request.trouble is not None:
                raise request.trouble
            report = parse_report(
                request.data,
                context.transfer_syntax[0],
                event_type=request.event_type,
                sender=self._title,
                received_at=time.time(),
            )
            fault_point("report.before")
            # Before the answer: no peer is bound to report twice.
            new = keep_report(self._layout, report)
            fault_point("report.after")
        except InputRejected as error:
            return Answer(receive_status.INVALID_ARGUMENT, error.message)
        except OSError as error:
            return receive_status.of_disk_report(error)
        LOGGER.info(
            "storage commitment of transaction %s from %s: %d committed, %d failed%s",
            report.transaction_uid,
            self._title,
            len(report.committed),
            len(report.failed),
            "" if new else " (reported before)",
        )
        return Answer(receive_status.SUCCESS)
