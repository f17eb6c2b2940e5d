"""DICOM over TLS at the listener: who comes in, who does not, and that neither harms anybody else."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from committing import COMMITMENT, instances, report, reporter, send
from pydicom import dcmread
from receiving import Node, associated, in_this_process, named, raw_store, rejection, running, tiny

from certified import Authority, Shown, caller
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.receive.commitment import read_report, report_file
from m3node.layout import DataLayout
from m3node.settings import Caller, Destination, ListenerTls
from m3node.tls.contexts import fingerprint
from served import ServedNode
from waiting import wait_for

CALLERS = (Caller(ae_title="TESTER"), Caller(ae_title="SECRET", tls=True))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Shown:
    return authority.issue("node")


@pytest.fixture(scope="module")
def modality(authority: Authority) -> Shown:
    return authority.issue("modality")


def tls_of(authority: Authority, own: Shown, **changes: object) -> ListenerTls:
    values = {"certificate_file": own.certificate, "key_file": own.key, "ca_file": authority.file, "port": 0}
    return ListenerTls.model_validate({**values, "handshake_seconds": 60.0, **changes})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, authority: Authority, own: Shown, modality: Shown) -> Iterator[Node]:
    pinned = Caller(ae_title="PINNED", certificate_sha256=(fingerprint(modality.der),))
    archive = Destination(
        name="pacs", ae_title="PACS", host="127.0.0.1", commitment=True, tls=True, ca_file=authority.file
    )
    with running(
        tmp_path_factory.mktemp("node"),
        callers=(*CALLERS, pinned),
        tls=tls_of(authority, own),
        destinations=(archive,),
    ) as node:
        yield node


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory, authority: Authority, own: Shown) -> Iterator[Node]:
    """Speaks TLS 1.3 alone."""
    tls = tls_of(authority, own, minimum="1.3")
    with running(tmp_path_factory.mktemp("newest"), callers=CALLERS, tls=tls) as node:
        yield node


class Dcmtk:
    """dcmtk's programs over TLS."""

    def __init__(self, program: Callable[[str], str], authority: Authority) -> None:
        self._program = program
        self._authority = authority

    def __call__(
        self, port: int, *files: Path, shown: Shown | None, profile: str = "+py", calling: str = "TESTER"
    ) -> bool:
        """Send the files, or an echo without them; say whether all of it was acknowledged."""
        over = (
            ["+tls", str(shown.key), str(shown.certificate), "+cf", str(self._authority.file), profile]
            if shown is not None
            else []
        )
        command = [self._program("storescu" if files else "echoscu"), "-aet", calling, "-aec", "M3NODE", *over]
        where = ["127.0.0.1", str(port), *map(str, files)]
        return subprocess.run([*command, *where], capture_output=True, check=False, timeout=120).returncode == 0


@pytest.fixture
def dcmtk(program: Callable[[str], str], authority: Authority) -> Dcmtk:
    return Dcmtk(program, authority)


def alerts(node: Node) -> list[str]:
    """What the audit trail says about those who were refused."""
    text = "".join(file.read_text(encoding="utf-8") for file in node.layout.audit.iterdir())
    return re.findall(r"<EventOutcomeDescription>(.*?)</EventOutcomeDescription>", text)


# In dcmtk 3.6.7 the non-downgrading profile takes TLS 1.3 where it can, and the extended one has TLS 1.2 alone.
@pytest.mark.parametrize("profile", ["+py", "+pz"], ids=["TLS 1.3", "TLS 1.2"])
def test_dcmtk_stores_over_tls_with_certificates_on_both_sides(
    node: Node, dcmtk: Dcmtk, modality: Shown, profile: str, tmp_path: Path
) -> None:
    hu = np.random.default_rng(1).integers(-200, 300, (2, 512, 512), dtype=np.int16)
    write_ct_series(tmp_path, hu, axial_geometry(hu.shape, (1.0, 0.7, 0.7)), seed=("tls", profile))
    files = sorted(tmp_path.iterdir())
    before = node.stored()
    assert dcmtk(node.tls_port, shown=modality, profile=profile)
    assert dcmtk(node.tls_port, *files, shown=modality, profile=profile)
    new = node.stored() - before
    assert len(new) == len(files)
    kept = {sha256(dcmread(node.layout.spool / name).PixelData).digest() for name in new}
    assert kept == {sha256(dcmread(file).PixelData).digest() for file in files}


def test_where_tls_1_3_is_the_oldest_a_peer_of_1_2_is_refused(newest: Node, dcmtk: Dcmtk, modality: Shown) -> None:
    assert dcmtk(newest.tls_port, shown=modality, profile="+py")
    assert not dcmtk(newest.tls_port, shown=modality, profile="+pz")
    assert "node authentication: TLS: it speaks no version of TLS that is allowed here" in alerts(newest)


def test_an_association_over_tls_that_falls_silent_is_aborted(
    authority: Authority, own: Shown, modality: Shown, tmp_path: Path
) -> None:
    with (
        in_this_process(tmp_path, tls=tls_of(authority, own), idle_seconds=0.5) as here,
        associated(here.port, tls=caller(authority.file, modality)) as association,
    ):
        wait_for(lambda: association.is_aborted)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_of_one_version_stores_over_tls(
    node: Node, authority: Authority, modality: Shown, version: ssl.TLSVersion
) -> None:
    calling = caller(authority.file, modality)
    calling.minimum_version = calling.maximum_version = version
    identity = named(int(version))
    with associated(node.tls_port, tls=calling) as association:
        assert association.is_established
        response = raw_store(association, tiny(identity), sop_instance=identity.sop_instance_uid)
    assert response is not None
    assert response.Status == 0x0000
    assert any(identity.sop_instance_uid in name for name in node.stored())


def echoes(node: Node, tls: ssl.SSLContext) -> bool:
    with associated(node.tls_port, ("1.2.840.10008.1.1", "1.2.840.10008.1.2"), tls=tls) as association:
        return association.is_established and association.send_c_echo().Status == 0x0000


def handshake(node: Node, context: ssl.SSLContext) -> None:
    """Shake hands and wait for a byte: the other side's refusal comes after TLS 1.3's handshake."""
    with (
        socket.create_connection(("127.0.0.1", node.tls_port), timeout=60) as peer,
        context.wrap_socket(peer, server_hostname="127.0.0.1") as over,
    ):
        over.recv(1)


def old(_authority: Authority, _modality: Shown, _folder: Path) -> ssl.SSLContext:
    context = caller()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def unknown(authority: Authority, _modality: Shown, folder: Path) -> ssl.SSLContext:
    return caller(authority.file, Authority(folder, "stranger").issue("modality"))


def expired(authority: Authority, _modality: Shown, _folder: Path) -> ssl.SSLContext:
    return caller(authority.file, authority.issue("expired", days=-1))


def nothing_shown(authority: Authority, _modality: Shown, _folder: Path) -> ssl.SSLContext:
    return caller(authority.file)


def not_ours(_authority: Authority, modality: Shown, folder: Path) -> ssl.SSLContext:
    return caller(Authority(folder, "other").file, modality)


REFUSED = {
    old: "it speaks no version of TLS that is allowed here",
    unknown: "its certificate is signed by an authority that is not in ca_file",
    expired: "its certificate has expired",
    nothing_shown: "it showed no certificate",
    not_ours: "it does not know the authority that signed our certificate",
}


@pytest.mark.parametrize("who", REFUSED)
def test_who_is_refused_in_the_handshake_is_audited_and_the_next_one_is_served(
    node: Node,
    authority: Authority,
    modality: Shown,
    tmp_path: Path,
    who: Callable[[Authority, Shown, Path], ssl.SSLContext],
) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - an alert, or the end of the connection
        handshake(node, who(authority, modality, tmp_path))
    wait_for(lambda: f"node authentication: TLS: {REFUSED[who]}" in alerts(node))
    assert echoes(node, caller(authority.file, modality))


def test_dcmtk_without_a_good_certificate_is_refused(
    node: Node, authority: Authority, dcmtk: Dcmtk, modality: Shown, tmp_path: Path
) -> None:
    for shown in (Authority(tmp_path, "stranger").issue("modality"), authority.issue("over", days=-30)):
        for profile in ("+py", "+pz"):
            assert not dcmtk(node.tls_port, shown=shown, profile=profile)
    assert dcmtk(node.tls_port, shown=modality)


def test_a_title_that_is_not_known_is_rejected_over_tls_as_well(node: Node, dcmtk: Dcmtk, modality: Shown) -> None:
    assert not dcmtk(node.tls_port, shown=modality, calling="STRANGER")
    assert [alert for alert in alerts(node) if "calling AE title not recognized (add it to listener.callers)" in alert]
    assert dcmtk(node.tls_port, shown=modality)


NOT_RECOGNISED = (1, 1, 3)
"""Calling AE title not recognized (PS3.8 table 9-21)."""


def test_a_caller_with_a_pin_comes_with_that_certificate_or_not_at_all(
    node: Node, authority: Authority, modality: Shown
) -> None:
    known, other = caller(authority.file, modality), caller(authority.file, authority.issue("another"))
    assert rejection(node.tls_port, calling="PINNED", tls=known) is None
    assert rejection(node.tls_port, calling="PINNED", tls=other) == NOT_RECOGNISED
    assert rejection(node.port, calling="PINNED") == NOT_RECOGNISED
    assert [alert for alert in alerts(node) if "is not in certificate_sha256 of listener.callers PINNED" in alert]
    assert rejection(node.tls_port, tls=other) is None  # a caller without a pin


def test_a_caller_that_is_bound_to_tls_is_refused_on_the_plain_port(
    node: Node, authority: Authority, modality: Shown
) -> None:
    assert rejection(node.port, calling="SECRET") == NOT_RECOGNISED
    assert rejection(node.tls_port, calling="SECRET", tls=caller(authority.file, modality)) is None
    assert rejection(node.port) is None


def test_storage_commitment_of_a_destination_over_tls_is_reported_over_tls_alone(
    node: Node, authority: Authority, modality: Shown
) -> None:
    (uid,) = instances(1)
    with reporter(node.tls_port, tls=caller(authority.file, modality)) as association:
        assert send(association, report("2.25.77", [uid])) == 0x0000
    found = read_report(report_file(node.layout, "2.25.77"))
    assert (found.sender, [item.sop_instance_uid for item in found.committed]) == ("PACS", [uid])
    assert rejection(node.port, calling="PACS", sop_class=COMMITMENT) == NOT_RECOGNISED


def test_dicom_in_the_clear_on_the_tls_port_is_refused_and_so_is_tls_on_the_plain_one(
    node: Node, dcmtk: Dcmtk, modality: Shown
) -> None:
    assert not dcmtk(node.tls_port, shown=None)
    wait_for(lambda: "node authentication: TLS: what it sent is not TLS" in alerts(node))
    assert not dcmtk(node.port, shown=modality)
    wait_for(lambda: [alert for alert in alerts(node) if "spoke TLS to the port without it" in alert])
    assert dcmtk(node.tls_port, shown=modality)
    assert dcmtk(node.port, shown=None)


def test_an_association_that_is_aborted_ends_as_tls_wants_it(node: Node, authority: Authority, modality: Shown) -> None:
    with (
        socket.create_connection(("127.0.0.1", node.tls_port), timeout=60) as peer,
        caller(authority.file, modality).wrap_socket(
            peer, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        ) as over,
    ):
        over.sendall(bytes(10))
        heard = b""
        while more := over.recv(1000):  # raises where the connection breaks off without close_notify
            heard += more
    assert heard[:1] == b"\x07"  # A-ABORT


def test_who_connects_to_the_tls_port_and_says_nothing_delays_nobody(node: Node, dcmtk: Dcmtk, modality: Shown) -> None:
    with ExitStack() as silent:
        peers = [
            silent.enter_context(socket.create_connection(("127.0.0.1", node.tls_port), timeout=60)) for _ in range(3)
        ]
        peers[1].sendall(b"\x16")  # the first byte of a handshake, and no more
        assert dcmtk(node.tls_port, shown=modality)
        for peer in peers:  # nobody has been hung up on to make room: their time is not over
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)


def test_an_association_over_tls_that_does_not_end_is_aborted_when_the_node_stops(
    authority: Authority, own: Shown, modality: Shown, tmp_path: Path
) -> None:
    with (
        in_this_process(tmp_path, tls=tls_of(authority, own)) as here,
        associated(here.port, tls=caller(authority.file, modality)) as association,
    ):
        assert association.is_established
        here.receiver.drain(0.1)
        wait_for(lambda: association.is_aborted)


def test_a_handshake_that_the_node_ends_when_it_stops_is_no_alert(
    authority: Authority, own: Shown, tmp_path: Path
) -> None:
    with (
        in_this_process(tmp_path, tls=tls_of(authority, own)) as here,
        socket.create_connection(("127.0.0.1", here.port), timeout=60) as peer,
    ):
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            caller().wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
        peer.sendall(hello.read())
        assert peer.recv(1)  # the node's answer: it waits for ours now
        here.receiver.drain(0.1)
        while peer.recv(65536):  # it is over now, not when the time of a handshake is
            pass
    audit = DataLayout(here.folder).audit
    assert not audit.exists() or not [file for file in audit.iterdir() if b"TLS" in file.read_bytes()]


def test_new_certificates_are_taken_for_the_next_connection_and_broken_ones_are_not(
    authority: Authority, modality: Shown, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    first, second = (Authority(tmp_path / name, name).issue("node") for name in ("first", "second"))
    folder.mkdir()
    current = Shown(folder / "node.pem", folder / "node.key", b"")

    def install(shown: Shown) -> None:
        for new, there in ((shown.certificate, current.certificate), (shown.key, current.key)):
            fresh = there.with_suffix(".new")
            fresh.write_bytes(new.read_bytes())
            fresh.replace(there)

    def shown_by(node: Node) -> str:
        context = caller(None, modality)
        with (
            socket.create_connection(("127.0.0.1", node.tls_port), timeout=60) as peer,
            context.wrap_socket(peer) as over,
        ):
            return fingerprint(over.getpeercert(binary_form=True) or b"")

    install(first)
    with running(tmp_path, callers=CALLERS, tls=tls_of(authority, current)) as node:
        assert shown_by(node) == fingerprint(first.der)
        with associated(node.tls_port, tls=caller(None, modality)) as association:
            install(second)
            assert shown_by(node) == fingerprint(second.der)
            current.certificate.write_text("not a certificate")
            assert shown_by(node) == fingerprint(second.der)
            current.certificate.unlink()
            assert shown_by(node) == fingerprint(second.der)
            install(first)
            assert shown_by(node) == fingerprint(first.der)
            identity = named(77)
            # It began with the first certificate, and has outlived all of them.
            response = raw_store(association, tiny(identity), sop_instance=identity.sop_instance_uid)
            assert response is not None
            assert response.Status == 0x0000


def test_without_the_plain_port_there_is_the_one_of_tls_alone(
    authority: Authority, own: Shown, modality: Shown, tmp_path: Path
) -> None:
    tls = tls_of(authority, own, client_certificates="none", ca_file=None)
    with running(tmp_path, plain=False, tls=tls) as node:
        assert node.port == 0
        # Without certificates of callers the connection is encrypted, and they are known by title and address.
        assert echoes(node, caller(authority.file))


def test_a_node_whose_certificate_cannot_be_used_says_so_and_does_not_start(own: Shown, tmp_path: Path) -> None:
    node = ServedNode(
        tmp_path,
        f'[listener.tls]\nclient_certificates = "none"\ncertificate_file = "{own.certificate}"\n'
        f'key_file = "{tmp_path / "none.key"}"\n[web]\nenabled = false\n',
    )
    said = node.says("serve", "--port", str(node.port))
    assert said.returncode != 0
    assert "none.key (listener.tls.key_file): No such file" in said.stderr
    assert "Traceback" not in said.stderr
