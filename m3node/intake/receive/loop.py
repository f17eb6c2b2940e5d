"""An association that is served by one thread which waits for the socket and for nothing else.

pynetdicom runs an association in two threads that poll: one reads the socket in pieces of 4 KiB and sleeps a
millisecond between looks, the other sleeps a millisecond between looks at the first one's queue. Most of the time to
receive a CT slice goes there. Here pynetdicom's state machine, ACSE and services run unchanged, but in one thread
that blocks in ``recv``, and C-STORE and N-EVENT-REPORT take a short way (`m3node.intake.receive.dimse`).

The names with a leading underscore are pynetdicom's; what is overridden is pinned by ``pynetdicom<4`` and by the wire
tests.
"""

from __future__ import annotations

import mmap
import queue
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from m3node import logs
from m3node.disk import Watermark
from m3node.intake.receive.dimse import COMMAND, ReportRequest, Request, RequestAssembler, StoreRequest, response
from m3node.intake.receive.passed_socket import ConnectionEndedError, PassedSocket
from m3node.intake.receive.status import Answer
from m3node.intake.receive.tls_socket import TlsConnection, TlsSocket

_Received = A_ASSOCIATE | A_RELEASE | A_ABORT | A_P_ABORT
_Primitive = _Received | P_DATA

StoreHandler = Callable[[StoreRequest, PresentationContext], Answer]
ReportHandler = Callable[[ReportRequest, PresentationContext], Answer]
RequestHandler = Callable[[A_ASSOCIATE], tuple[int, int, int] | None]


class TroubleHandler(Protocol):
    """Hears why an association is aborted: what the peer did in words that follow its name, as in "was silent"."""

    def __call__(self, words: str, *, limit: bool) -> None:
        """Take it in; `limit` when the peer wants more than it may."""


_PDU_HEAD = struct.Struct(">BBL")
_PDV_HEAD = struct.Struct(">LBB")
_P_DATA_TF = 0x04
_KNOWN_PDUS = range(0x01, 0x08)
_TLS_HANDSHAKE = (0x16, 0x03)
"""How its first record begins, whatever the version."""
_INVALID_PDU = "Evt19"
"""Event of the state machine (PS3.8 table 9-10): the association is aborted."""
_CLOSING = "Sta13"
"""State in which only the end of the connection is waited for."""
_OTHER_PDU_LIMIT = 1024 * 1024
"""No association request is larger; a length above is noise."""
_PASSED_ON_LIMIT = 1024 * 1024
"""Nor is a message that is left to pynetdicom, which keeps all of it in memory: a verification has no data set."""

_FAREWELL_SECONDS = 1.0
"""How long the peer has, after our last PDU, to close the connection itself (PS3.8 9.1.5 lets it take ARTIM)."""


class BlockingUpperLayer(DULServiceProvider):
    """The DICOM upper layer (PS3.8 9.2) without a thread of its own.

    What the local user sends goes out within `send_pdu`; what the peer sends is taken in by `step`.
    """

    def __init__(self, assoc: Association, overflow: Path, room: Watermark | None) -> None:
        super().__init__(assoc)
        self._body = bytearray()
        self._passed_on = 0
        self._deadline: float | None = None
        self._assembler = RequestAssembler(overflow, room)
        self.requests: list[Request] = []

    def start(self) -> None:
        """Nothing to start: the association's thread does the work."""
        self.assoc._dul_ready.set()
        self._act_on_events()

    def is_alive(self) -> bool:
        """Whether the connection still stands."""
        return not self._kill_thread

    def send_pdu(self, primitive: _Primitive) -> None:
        """Send at once."""
        super().send_pdu(primitive)
        while self.is_alive() and self._process_recv_primitive():
            self._act_on_events()

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> _Received | None:
        """Return the next primitive for the local user; with `wait`, read until there is one or time is up."""
        if wait:
            seconds = timeout or self.assoc.network_timeout or 30.0
            self._deadline = deadline = time.monotonic() + seconds
            cast(PassedSocket, self.socket).wait_at_most(seconds)
            while self.is_alive() and self.to_user_queue.empty() and self.state_machine.current_state != _CLOSING:
                if time.monotonic() > deadline or not self.step():
                    break
            self._deadline = None
        return super().receive_pdu(wait=False)

    def release_buffers(self) -> None:
        """Give the memory back at once: association and layer refer to each other and wait for the collector."""
        self._body = bytearray()
        self._assembler.release()
        self.requests.clear()

    def stop_dul(self) -> bool:
        """Bring the connection to its end in the order that the standard has (state 13, then 1)."""
        sock = cast(PassedSocket, self.socket)
        sock.wait_at_most(_FAREWELL_SECONDS)
        deadline = time.monotonic() + 2 * _FAREWELL_SECONDS  # a peer may go on sending without end
        while self.is_alive() and self.state_machine.current_state == _CLOSING:
            if time.monotonic() > deadline or not self.step():
                sock.close()
                self._act_on_events()
        if self.is_alive():
            sock.close()
            self._kill_thread = True
        return True

    def step(self) -> bool:
        """Take in one PDU.

        Returns
        -------
        bool
            False when none came within the time set by `PassedSocket.wait_at_most`.
        """
        try:
            self._read_pdu_data()
        except TimeoutError:
            return False
        except ConnectionEndedError:
            if self.assoc._kill and self.state_machine.current_state == "Sta6":
                return True  # woken by `ServedAssociation.interrupt`, which wants an abort to be sent
            self.event_queue.put("Evt17")
        self._act_on_events()
        return True

    def _act_on_events(self) -> None:
        while not self._kill_thread:
            try:
                event = self.event_queue.get(block=False)
            except queue.Empty:
                return
            if event == _INVALID_PDU and self.state_machine.current_state == _CLOSING:
                continue  # one PDU may hold many invalid values, and one abort is enough
            # A PDU that can be decoded may still hold what pynetdicom's primitives do not take.
            try:
                self.state_machine.do_action(event)
            except Exception as error:
                if event == _INVALID_PDU:
                    raise
                with self.to_provider_queue.mutex:
                    self.to_provider_queue.queue.clear()  # what we wanted to say now would be tried again for ever
                self._invalid(f"sent a PDU with values that cannot be ({logs.describe(error)})")

    def _read_pdu_data(self) -> None:
        sock = cast(PassedSocket, self.socket)
        if self.state_machine.current_state == _CLOSING:
            # The standard answers each invalid PDU by an abort again (AA-7), and noise holds many in no time.
            sock.discard()
            return
        head = bytearray(_PDU_HEAD.size)
        sock.read_into(memoryview(head))
        kind, second, length = _PDU_HEAD.unpack(head)
        most = self.assoc.acceptor.maximum_length if kind == _P_DATA_TF else _OTHER_PDU_LIMIT
        if kind not in _KNOWN_PDUS or length > most:
            if kind == _P_DATA_TF and self.state_machine.current_state == "Sta6":
                self._invalid(f"sent a PDU of {length} bytes, and may send {most} (maximum_pdu_size)", limit=True)
            elif (kind, second) == _TLS_HANDSHAKE and not isinstance(sock, TlsSocket):
                self._invalid("spoke TLS to the port without it")
            else:
                self._invalid("sent what is no PDU of DICOM")
            return
        body = self._room_for(kind, length)
        if self._deadline is not None:
            sock.wait_at_most(max(0.001, self._deadline - time.monotonic()))
        try:
            sock.read_into(body)
        except TimeoutError:
            raise ConnectionEndedError from None
        # What a peer's bytes do to pynetdicom's parsers ends this association and nothing else.
        try:
            if kind == _P_DATA_TF and self.state_machine.current_state == "Sta6":
                self._take_data(body)
                return
            pdu, event = self._decode_pdu(head + body)
        except Exception:  # noqa: BLE001
            self._invalid("sent a PDU that cannot be decoded")
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _room_for(self, kind: int, length: int) -> memoryview:
        if not (kind == _P_DATA_TF and self.state_machine.current_state == "Sta6") and length > len(self._body):
            # Pages that nothing is written to take no memory: a stranger has no more of it than he has sent bytes.
            return memoryview(mmap.mmap(-1, length))[:length] if length else memoryview(b"")
        if len(self._body) < length:
            self._body = bytearray(length)
        return memoryview(self._body)[:length]

    def _invalid(self, words: str, *, limit: bool = False) -> None:
        cast(ServedAssociation, self.assoc).trouble(words, limit=limit)
        self.event_queue.put(_INVALID_PDU)

    def limit_objects(self, most: int, setting: str) -> None:
        """Keep no data set that is larger."""
        self._assembler.limit(most, setting)

    def take_message(self) -> None:
        """Begin to count anew: what was passed on was a whole message, and is taken care of."""
        self._passed_on = 0

    def _take_data(self, body: memoryview) -> None:
        """Take in the presentation data values of a P-DATA-TF: what is answered here, all else by pynetdicom (DT-2)."""
        pos = 0
        while pos < len(body):
            length, context_id, control = _PDV_HEAD.unpack_from(body, pos)
            if length < 2 or pos + 4 + length > len(body):
                raise ValueError("a presentation data value does not fit into its PDU")
            if self.requests:
                # One operation at a time is negotiated (PS3.7 D.3.3.3); the data lie in a buffer that is used again.
                raise ValueError("a message began before the last one was answered")
            fragment = body[pos + 6 : pos + 4 + length]
            pos += 4 + length
            if control & COMMAND:
                taken = self._assembler.take_command(context_id, control, fragment)
                if isinstance(taken, StoreRequest | ReportRequest):
                    self.requests.append(taken)
                elif taken is not None:
                    self._pass_on(context_id, control, taken)
            elif self._assembler.wants_data:
                request = self._assembler.take_data(context_id, control, fragment)
                if request is not None:
                    self.requests.append(request)
            else:
                self._pass_on(context_id, control, bytes(fragment))

    def _pass_on(self, context_id: int, control: int, value: bytes) -> None:
        self._passed_on += len(value)
        if self._passed_on > _PASSED_ON_LIMIT:
            raise ValueError("a message is too long")
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, bytes([control]) + value))
        self.assoc.dimse.receive_primitive(primitive)


class ServedAssociation(Association):
    """An association in acceptor mode on a socket that somebody else accepted.

    Parameters
    ----------
    ae : ApplicationEntity
        Title, timeouts, PDU size and supported contexts of this node.
    client_socket : socket.socket
        The connection.
    request : callable
        Decides on the association: None to accept it, else result, source and reason of its rejection.
    store : callable
        Answers a C-STORE request, given it and its accepted presentation context.
    report : callable
        Answers an N-EVENT-REPORT request likewise.
    trouble : callable
        Hears why the association is aborted from here.
    overflow : Path
        Folder for data sets that are too large for the memory.
    room : Watermark, optional
        Below it they are not kept.
    tls : TlsConnection, optional
        What reads and writes it, where hands have been shaken.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        client_socket: socket.socket,
        *,
        request: RequestHandler,
        store: StoreHandler,
        report: ReportHandler,
        trouble: TroubleHandler,
        overflow: Path,
        room: Watermark | None = None,
        tls: TlsConnection | None = None,
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._request = request
        self._store = store
        self._report = report
        self.trouble = trouble
        self.dul = BlockingUpperLayer(self, overflow, room)
        self.acse_timeout = ae.acse_timeout  # sets the new layer's ARTIM timer too
        self._connection = PassedSocket(self, client_socket) if tls is None else TlsSocket(self, client_socket, tls)
        self.set_socket(self._connection)
        self.acceptor.maximum_length = ae.maximum_pdu_size
        self.acceptor.ae_title = ae.ae_title
        self.acceptor.implementation_class_uid = ae.implementation_class_uid
        self.acceptor.implementation_version_name = ae.implementation_version_name
        self.acceptor.supported_contexts = ae.supported_contexts
        self.acceptor.address_info = AddressInformation.from_tuple(client_socket.getsockname())
        self.requestor.address_info = AddressInformation.from_tuple(client_socket.getpeername())

    def limit_objects(self, most: int, setting: str) -> None:
        """Keep no data set of more bytes; `setting` is why, for the answer."""
        cast(BlockingUpperLayer, self.dul).limit_objects(most, setting)

    def interrupt(self) -> None:
        """End from another thread: the association's own thread wakes up and aborts."""
        self._kill = True
        sock = self._connection.socket
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RD)
            except OSError:
                return  # already closed by the peer

    def run_reactor(self) -> None:
        """Serve the association from its request to its end, in the calling thread."""
        self.dul.start()
        primitive = self.dul.receive_pdu(wait=True, timeout=self.acse_timeout)
        if isinstance(primitive, A_ASSOCIATE):
            self.requestor.primitive = primitive
            # Not by pynetdicom's event: what is raised in its handlers is passed over, and the peer would be accepted.
            rejection = self._request(primitive)
            if rejection is not None:
                self.acse.send_reject(*rejection)
            else:
                self._negotiate()
            if self.is_established:
                self._run_reactor()
        self.kill()
        cast(BlockingUpperLayer, self.dul).release_buffers()
        self._connection.release_buffers()

    def _negotiate(self) -> None:
        try:
            self.acse.negotiate_association()
        except Exception as error:  # noqa: BLE001 - what a peer asks for is nothing that pynetdicom was ready for
            self.trouble(f"asked for what cannot be negotiated ({logs.describe(error)})", limit=False)
            self.abort()

    def _run_reactor(self) -> None:
        layer = cast(BlockingUpperLayer, self.dul)
        self._connection.wait_at_most(self.network_timeout or 60.0)
        while not self._kill:
            context_id, message = self.dimse.get_msg(block=False)
            if layer.requests:
                self._answer(layer.requests.pop(0))
            elif message is not None:
                layer.take_message()
                self._serve_request(message, cast(int, context_id))
            elif self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                evt.trigger(self, evt.EVT_RELEASED, {})
                return
            elif self.acse.is_aborted():
                self.dul.receive_pdu(wait=False)
                self.is_aborted = True
                self.is_established = False
                evt.trigger(self, evt.EVT_ABORTED, {})
                return
            elif not layer.is_alive():
                return
            elif not layer.step():
                self.trouble(f"was silent for {self.network_timeout:g} s", limit=False)
                self.abort()
                return
        if self.is_established:
            self.abort()

    def _answer(self, request: Request) -> None:
        context = self._accepted_cx.get(request.context_id)
        if context is None:
            self.trouble("sent a request in a presentation context that was not accepted", limit=False)
            self.abort()
            return
        answer = self._store(request, context) if isinstance(request, StoreRequest) else self._report(request, context)
        self._connection.send(response(request, answer))
