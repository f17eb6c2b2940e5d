"""C-STORE requests are put together from any fragments, and answered as pynetdicom would read it."""

from __future__ import annotations

import string
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_EVENT_REPORT
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from m3node.intake.receive.dimse import ReportRequest, Request, RequestAssembler, StoreRequest, parse_command, response
from m3node.intake.receive.status import Answer

CT = "1.2.840.10008.5.1.4.1.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"


def fragments(data: bytes, max_pdu: int, *, priority: int = 0) -> list[tuple[int, int, memoryview]]:
    """A C-STORE request as pynetdicom sends it."""
    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = CT
    primitive.AffectedSOPInstanceUID = "2.25.1"
    primitive.Priority = priority
    primitive.DataSet = BytesIO(data)
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    return [
        (context, value[0], memoryview(value)[1:])
        for pdata in message.encode_msg(5, max_pdu)
        for context, value in pdata.presentation_data_value_list
    ]


def report_fragments(data: bytes, max_pdu: int) -> list[tuple[int, int, memoryview]]:
    """An N-EVENT-REPORT request as pynetdicom sends it."""
    primitive = N_EVENT_REPORT()
    primitive.MessageID = 9
    primitive.AffectedSOPClassUID = COMMITMENT
    primitive.AffectedSOPInstanceUID = "2.25.1"
    primitive.EventTypeID = 2
    primitive.EventInformation = BytesIO(data)
    message = N_EVENT_REPORT_RQ()
    message.primitive_to_message(primitive)
    return [
        (context, value[0], memoryview(value)[1:])
        for pdata in message.encode_msg(5, max_pdu)
        for context, value in pdata.presentation_data_value_list
    ]


def assemble(assembler: RequestAssembler, message: list[tuple[int, int, memoryview]]) -> Request:
    request = None
    for context, control, fragment in message:
        assert request is None
        if control & 1:
            assert assembler.take_command(context, control, fragment) is None
        else:
            request = assembler.take_data(context, control, fragment)
    assert request is not None
    return request


@settings(deadline=None)
@given(data=st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=3), max_pdu=st.integers(20, 5000))
def test_requests_come_out_as_they_went_in_however_they_are_cut(data: list[bytes], max_pdu: int) -> None:
    assembler = RequestAssembler(Path("unused"))
    for one in data:
        request = assemble(assembler, fragments(one, max_pdu))
        assert isinstance(request, StoreRequest)
        assert bytes(request.data) == one
        assert (request.context_id, request.message_id) == (5, 7)
        assert (request.sop_class_uid, request.sop_instance_uid) == (CT, "2.25.1")


@pytest.mark.parametrize(("priority", "urgent"), [(0, False), (1, True), (2, False)], ids=["medium", "high", "low"])
def test_a_request_of_high_priority_is_urgent(priority: int, urgent: bool) -> None:
    request = assemble(RequestAssembler(Path("unused")), fragments(b"x", 5000, priority=priority))
    assert isinstance(request, StoreRequest)
    assert request.urgent is urgent


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=3000), max_pdu=st.integers(20, 5000))
def test_a_report_comes_out_between_two_instances_as_it_went_in(data: bytes, max_pdu: int) -> None:
    assembler = RequestAssembler(Path("unused"))
    assemble(assembler, fragments(b"before", max_pdu))
    request = assemble(assembler, report_fragments(data, max_pdu))
    assert isinstance(request, ReportRequest)
    assert bytes(request.data) == data
    assert (request.context_id, request.message_id, request.event_type) == (5, 9, 2)
    assert (request.sop_class_uid, request.sop_instance_uid) == (COMMITMENT, "2.25.1")
    assert bytes(assemble(assembler, fragments(b"after", max_pdu)).data) == b"after"


@settings(deadline=None)
@given(
    status=st.sampled_from([0x0000, 0xA700, 0xA900, 0xC001]),
    comment=st.text(string.printable, max_size=100),
    message=st.integers(0, 65535),
)
def test_the_response_reads_as_the_standard_has_it(status: int, comment: str, message: int) -> None:
    request = StoreRequest(3, message, CT, "2.25.12", memoryview(b""))
    pdu = P_DATA_TF()
    pdu.decode(response(request, Answer(status, comment)))
    (item,) = pdu.presentation_data_value_items
    assert item.presentation_context_id == 3
    assert item.presentation_data_value[0] == 3  # command, last fragment
    command = decode(BytesIO(item.presentation_data_value[1:]), True, True)
    assert command.CommandField == 0x8001
    assert command.MessageIDBeingRespondedTo == message
    assert command.CommandDataSetType == 0x0101
    assert command.Status == status
    assert (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (CT, "2.25.12")
    assert ("ErrorComment" in command) == bool(comment)
    assert len(command.get("ErrorComment") or "") <= 64
    assert command.CommandGroupLength == len(item.presentation_data_value) - 1 - 12


def test_the_response_to_a_report_says_which_event_it_answers() -> None:
    request = ReportRequest(3, 9, COMMITMENT, "2.25.12", 2, memoryview(b""))
    pdu = P_DATA_TF()
    pdu.decode(response(request, Answer(0x0213, "out of resources")))
    (item,) = pdu.presentation_data_value_items
    command = decode(BytesIO(item.presentation_data_value[1:]), True, True)
    assert (command.CommandField, command.MessageIDBeingRespondedTo) == (0x8100, 9)
    assert (command.Status, command.EventTypeID, command.CommandDataSetType) == (0x0213, 2, 0x0101)
    assert [element.tag for element in command] == sorted(element.tag for element in command)


def test_a_request_without_a_data_set_is_not_waited_for() -> None:
    assembler = RequestAssembler(Path("unused"))
    context, control, command = fragments(b"x", 4096)[0]
    without = bytes(command).replace(b"\x00\x08\x02\x00\x00\x00\x01\x00", b"\x00\x08\x02\x00\x00\x00\x01\x01")
    assert without != bytes(command)
    request = assembler.take_command(context, control, memoryview(without))
    assert isinstance(request, StoreRequest)
    assert bytes(request.data) == b""
    assert not assembler.wants_data


def test_another_message_is_handed_back_whole() -> None:
    primitive = C_ECHO()
    primitive.MessageID = 1
    primitive.AffectedSOPClassUID = "1.2.840.10008.1.1"
    message = C_ECHO_RQ()
    message.primitive_to_message(primitive)
    (pdata,) = message.encode_msg(1, 0)
    ((_, value),) = pdata.presentation_data_value_list
    assembler = RequestAssembler(Path("unused"))
    half = len(value) // 2
    assert assembler.take_command(1, 1, memoryview(value)[1:half]) is None
    assert assembler.take_command(1, 3, memoryview(value)[half:]) == value[1:]
    assert not assembler.wants_data


def test_what_breaks_the_protocol_is_an_error_and_not_a_stored_file() -> None:
    assembler = RequestAssembler(Path("unused"))
    (command, *_) = fragments(b"x", 4096)
    assembler.take_command(*command)
    with pytest.raises(ValueError, match="before the last one"):
        assembler.take_command(*command)
    with pytest.raises(ValueError, match="does not follow"):
        assembler.take_data(9, 2, memoryview(b"x"))
    with pytest.raises(ValueError, match="does not follow"):
        RequestAssembler(Path("unused")).take_data(5, 2, memoryview(b"x"))


def test_a_request_without_a_message_id_is_refused_before_its_data_set_is_waited_for() -> None:
    context, control, command = fragments(b"x", 4096)[0]
    message_id = bytes.fromhex("0000 1001 0200 0000 0700")
    without = bytes(command).replace(message_id, b"")
    assert without != bytes(command)
    with pytest.raises(ValueError, match=r"no \(0000,0110\)"):
        RequestAssembler(Path("unused")).take_command(context, control, memoryview(without))


def test_a_command_set_that_never_ends_is_not_kept() -> None:
    assembler, part = RequestAssembler(Path("unused")), memoryview(bytes(32 * 1024))
    assert assembler.take_command(1, 1, part) is None
    assert assembler.take_command(1, 1, part) is None
    with pytest.raises(ValueError, match="too long"):
        assembler.take_command(1, 1, memoryview(b"x"))


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ("0000 0001 0200 0000 0100 0000", "ends inside an element"),
        ("0000 0001 0400 0000 0100", "an element that is none"),
        ("0800 0001 0200 0000 0100", "an element that is none"),
    ],
    ids=["half a head", "longer than the rest", "of another group"],
)
def test_bytes_that_are_no_command_set_are_refused(encoded: str, message: str) -> None:
    assert parse_command(bytes.fromhex("0000 0001 0200 0000 0100")) == {0x0100: b"\1\0"}
    with pytest.raises(ValueError, match=message):
        parse_command(bytes.fromhex(encoded))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_command_set_or_a_value_error(data: bytes) -> None:
    for parse in (parse_command, lambda data: RequestAssembler(Path("unused")).take_command(1, 3, memoryview(data))):
        try:
            parse(data)
        except ValueError:
            continue
