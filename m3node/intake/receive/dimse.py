"""C-STORE and N-EVENT-REPORT on the wire: command sets, the data set's fragments, responses (PS3.7 9.3.1, 10.3.1).

pynetdicom turns every command set into a data set object and back, which costs as much as all the rest of receiving a
CT slice; and a request with a malformed UID makes it abort the association, where the standard wants a status. A
command set has a dozen short elements, always in Implicit VR Little Endian: they are read and written here directly.
N-EVENT-REPORT goes the same way because pynetdicom answers it from a thread of its own, which here, where one thread
serves an association, would leave the answer behind when the peer asks for the release meanwhile.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from m3node.disk import Watermark
from m3node.intake.receive.gathered import Gathered
from m3node.intake.receive.status import Answer

C_STORE_RQ = 0x0001
N_EVENT_REPORT_RQ = 0x0100
_RESPONSE = 0x8000
"""Bit that makes the command field of a request that of its response (PS3.7 E.1)."""

_NO_DATA_SET = 0x0101

_AFFECTED_CLASS = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_INSTANCE = 0x1000
_EVENT_TYPE = 0x1002

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")

COMMAND, LAST = 1, 2
"""Bits of a fragment's message control header (PS3.8 E.2)."""

_HIGH = _US.pack(0x0001)
"""Priority HIGH (PS3.7 9.3.1.1); one that is missing or odd is none."""

_MAX_COMMAND = 64 * 1024


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE request as it came.

    Attributes
    ----------
    context_id : int
        Presentation context.
    message_id : int
        Message ID (0000,0110).
    sop_class_uid, sop_instance_uid : str
        Affected SOP Class and Instance UID as the command has them; may be no UIDs at all.
    data : memoryview
        The encoded data set; valid until the next request is read.
    urgent : bool
        Whether Priority (0000,0700) is HIGH.
    trouble : OSError or None
        Why there is no data set although one was sent: it is larger than it may be, or the disk refused what is too
        large for the memory.
    """

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    data: memoryview
    urgent: bool = False
    trouble: OSError | None = None


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """An N-EVENT-REPORT request as it came.

    Attributes
    ----------
    context_id, message_id, sop_class_uid, sop_instance_uid, data, trouble
        As in `StoreRequest`; the data set is the event information.
    event_type : int
        Event Type ID (0000,1002).
    """

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    event_type: int
    data: memoryview
    trouble: OSError | None = None


Request = StoreRequest | ReportRequest


def parse_command(encoded: bytes | bytearray | memoryview) -> dict[int, bytes]:
    """Read a command set: values by element number (the group is always 0000).

    Raises
    ------
    ValueError
        The bytes are no command set.
    """
    values: dict[int, bytes] = {}
    pos = 0
    while pos < len(encoded):
        if pos + 8 > len(encoded):
            raise ValueError("a command set ends inside an element")
        group, number, length = _ELEMENT.unpack_from(encoded, pos)
        pos += 8
        if group or pos + length > len(encoded):
            raise ValueError("a command set has an element that is none")
        values[number] = bytes(encoded[pos : pos + length])
        pos += length
    return values


def _us(values: dict[int, bytes], number: int) -> int:
    value = values.get(number, b"")
    if len(value) != 2:
        raise ValueError(f"a command set has no (0000,{number:04X})")
    return int.from_bytes(value, "little")


def _text(values: dict[int, bytes], number: int) -> str:
    return values.get(number, b"").rstrip(b"\0 ").decode("ascii", errors="replace")


class RequestAssembler:
    """Puts the fragments of C-STORE and N-EVENT-REPORT requests together.

    What belongs to another DIMSE message is left to the caller.

    Parameters
    ----------
    folder : Path
        Where data sets go that are too large for the memory.
    room : Watermark, optional
        Below it they go nowhere.
    """

    def __init__(self, folder: Path, room: Watermark | None = None) -> None:
        self._command = bytearray()
        self._pending: dict[int, bytes] | None = None
        self._context_id = 0
        self._gathered = Gathered(folder, room)

    def take_command(self, context_id: int, control: int, fragment: memoryview) -> Request | bytes | None:
        """Take a fragment of a command set.

        Returns
        -------
        Request or bytes or None
            The whole command set when it is complete and that of another message: somebody else's. A request when it
            comes without a data set: there is nothing to wait for.

        Raises
        ------
        ValueError
            No command set, or one before the last message was complete.
        """
        if self._pending is not None:
            raise ValueError("a message began before the last one was complete")
        self._command += fragment
        if len(self._command) > _MAX_COMMAND:
            raise ValueError("a command set is too long")
        if not control & LAST:
            return None
        encoded = bytes(self._command)
        self._command.clear()
        values = parse_command(encoded)
        if _us(values, _COMMAND_FIELD) not in (C_STORE_RQ, N_EVENT_REPORT_RQ):
            return encoded
        _us(values, _MESSAGE_ID)
        if _us(values, _DATA_SET_TYPE) == _NO_DATA_SET:
            return _request(context_id, values, memoryview(b""))
        self._pending, self._context_id = values, context_id
        self._gathered.clear()
        return None

    def limit(self, most: int, setting: str) -> None:
        """Keep no data set that is larger; `setting` is why, for the answer."""
        self._gathered.most, self._gathered.most_setting = most, setting

    def release(self) -> None:
        """Give memory and disk back; no more requests are put together."""
        self._command.clear()
        self._pending = None
        self._gathered.release()

    @property
    def wants_data(self) -> bool:
        """Whether a request waits for the rest of its data set."""
        return self._pending is not None

    def take_data(self, context_id: int, control: int, fragment: memoryview) -> Request | None:
        """Take a fragment of the pending request's data set; return the request when it was the last.

        Raises
        ------
        ValueError
            The fragment belongs to another presentation context.
        """
        if self._pending is None or context_id != self._context_id:
            raise ValueError("a data set does not follow its command")
        self._gathered.add(fragment)
        if not control & LAST:
            return None
        values, self._pending = self._pending, None
        data = self._gathered.view()
        return _request(context_id, values, data, self._gathered.trouble)


def _request(context_id: int, values: dict[int, bytes], data: memoryview, trouble: OSError | None = None) -> Request:
    if _us(values, _COMMAND_FIELD) == N_EVENT_REPORT_RQ:
        return ReportRequest(
            context_id=context_id,
            message_id=_us(values, _MESSAGE_ID),
            sop_class_uid=_text(values, _AFFECTED_CLASS),
            sop_instance_uid=_text(values, _AFFECTED_INSTANCE),
            event_type=_us(values, _EVENT_TYPE),
            data=data,
            trouble=trouble,
        )
    return StoreRequest(
        context_id=context_id,
        message_id=_us(values, _MESSAGE_ID),
        sop_class_uid=_text(values, _AFFECTED_CLASS),
        sop_instance_uid=_text(values, _AFFECTED_INSTANCE),
        data=data,
        urgent=values.get(_PRIORITY) == _HIGH,
        trouble=trouble,
    )


def _element(number: int, value: bytes, pad: bytes = b"\0") -> bytes:
    if len(value) % 2:
        value += pad
    return _ELEMENT.pack(0, number, len(value)) + value


def response(request: Request, answer: Answer) -> bytes:
    """Encode the response to a request as one P-DATA-TF PDU (PS3.7 9.3.1.2, 10.3.1.2)."""
    command_field = C_STORE_RQ if isinstance(request, StoreRequest) else N_EVENT_REPORT_RQ
    body = _element(_AFFECTED_CLASS, request.sop_class_uid.encode("ascii", errors="replace"))
    body += _element(_COMMAND_FIELD, _US.pack(command_field | _RESPONSE))
    body += _element(_RESPONDED_TO, _US.pack(request.message_id))
    body += _element(_DATA_SET_TYPE, _US.pack(_NO_DATA_SET))
    body += _element(_STATUS, _US.pack(answer.status))
    if answer.comment:
        body += _element(_ERROR_COMMENT, answer.comment[:64].encode("ascii", errors="replace"), b" ")
    body += _element(_AFFECTED_INSTANCE, request.sop_instance_uid.encode("ascii", errors="replace"))
    if isinstance(request, ReportRequest):
        body += _element(_EVENT_TYPE, _US.pack(request.event_type))
    command = _element(0x0000, struct.pack("<L", len(body))) + body
    value = struct.pack(">LBB", len(command) + 2, request.context_id, COMMAND | LAST) + command
    return struct.pack(">BBL", 0x04, 0, len(value)) + value
