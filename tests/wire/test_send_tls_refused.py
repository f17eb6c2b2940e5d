"""C-STORE over TLS: who gets not a byte of a result, and what an administrator is told."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from delivering import QUICK, go, left, queue_one
from tls_peers import (
    Listening,
    World,
    drips,
    hangs_up,
    hears,
    leaves,
    listening,
    refuses_pdus,
    says_nothing,
    shows,
    speaking,
    wants_tls,
)

import audited
from certified import Shown, made
from m3node.delivery.state import DeliveryState
from m3node.layout import DataLayout
from m3node.settings import DeliverySettings
from m3node.tls.contexts import fingerprint
from ports import free_port

ON_ITS_WAY = QUICK.model_copy(update={"connect_seconds": 0.5})
"""For peers that never answer a handshake."""


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.made(tmp_path_factory.mktemp("world"))


def of_a_time(folder: Path, begins: float, ends: float) -> tuple[Path, Shown]:
    """An authority, and a certificate that is good from so many days to so many days from now."""
    authority = trustme.CA()
    now = datetime.now(UTC)
    leaf = authority.issue_cert(
        "127.0.0.1", not_before=now + timedelta(days=begins), not_after=now + timedelta(days=ends)
    )
    shown = Shown(folder / "timed.pem", folder / "timed.key", b"")
    leaf.cert_chain_pems[0].write_to_path(shown.certificate)
    leaf.private_key_pem.write_to_path(shown.key)
    authority.cert_pem.write_to_path(folder / "timed-ca.pem")
    return folder / "timed-ca.pem", shown


def why(layout: DataLayout, peer: Listening, delivery: DeliverySettings = QUICK, **settings: object) -> str:
    """What an administrator reads of a destination that gets nothing; it is tried again, and no object is set aside."""
    to = peer.destination(**settings)
    queue_one(layout, to)
    told = go(layout, to, delivery)
    assert (told.stored, told.put_off, told.aside) == (0, 1, 0)
    (entry,) = left(layout).values()
    assert (entry.state, entry.last_error) == (DeliveryState.RETRYING, told.unreachable)
    beginning = f"no connection to PACS@127.0.0.1:{peer.port}: "
    assert told.unreachable.startswith(beginning)
    assert peer.data == b""
    return told.unreachable.removeprefix(beginning)


def test_a_peer_of_an_unknown_authority_gets_nothing(layout: DataLayout, world: World) -> None:
    with listening(hears(speaking(world.unknown))) as peer:
        assert why(layout, peer, **world.trust) == (
            f"its certificate is not signed by an authority in ca_file ({world.authority.file}); "
            f"its SHA-256 is {fingerprint(world.unknown.der)}"
        )


def test_without_an_authority_in_the_settings_the_systems_count(layout: DataLayout, world: World) -> None:
    with listening(hears(speaking(world.pacs))) as peer:
        assert why(layout, peer).startswith("its certificate is not signed by an authority of this system: set ca_file")


def test_a_peer_whose_certificate_is_over_gets_nothing(layout: DataLayout, tmp_path: Path) -> None:
    authority, shown = of_a_time(tmp_path, -10, -2)
    day = datetime.now(UTC) - timedelta(days=2)
    with listening(hears(speaking(shown))) as peer:
        assert why(layout, peer, ca_file=authority) == f"its certificate has expired on {day:%Y-%m-%d}"


def test_a_peer_whose_certificate_is_not_yet_valid_gets_nothing(layout: DataLayout, tmp_path: Path) -> None:
    authority, shown = of_a_time(tmp_path, 2, 10)
    day = datetime.now(UTC) + timedelta(days=2)
    with listening(hears(speaking(shown))) as peer:
        told = why(layout, peer, ca_file=authority)
        assert told.startswith(f"its certificate is valid from {day:%Y-%m-%d} ")
        assert told.endswith(" UTC on: compare the clocks")


def test_a_peer_of_another_name_gets_nothing(layout: DataLayout, world: World) -> None:
    with listening(hears(speaking(world.pacs))) as peer:
        assert why(layout, peer, tls_name="pacs.example.org", **world.trust) == (
            "the name in its certificate is not pacs.example.org, but 127.0.0.1, localhost"
        )


def test_a_name_in_a_certificate_gives_a_terminal_no_orders(layout: DataLayout, tmp_path: Path) -> None:
    shown = made(tmp_path, ["pacs\x1b[2J\n", "0.example", "1.example", "2.example"])
    with listening(hears(speaking(shown))) as peer:
        assert why(layout, peer, ca_file=shown.certificate) == (
            "the name in its certificate is not 127.0.0.1, but pacs?[2J?, 0.example, 1.example, …"
        )


def test_an_authority_whose_time_is_over_is_told_from_its_certificates(layout: DataLayout, tmp_path: Path) -> None:
    authority = made(tmp_path, ["authority"], ends=-1.0)
    shown = made(tmp_path, ["pacs"], authority)
    with listening(hears(speaking(shown))) as peer:
        told = why(layout, peer, ca_file=authority.certificate, tls_name="pacs")
    assert told == "a certificate of its authorities has expired, or is not valid yet"


def test_who_is_not_trusted_is_looked_at_and_does_not_get_to_see_our_certificate(
    layout: DataLayout, world: World
) -> None:
    context = speaking(world.unknown, callers=world.authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    seen: list[bytes | None] = []

    def handle(connection: socket.socket, state: Listening) -> None:
        with context.wrap_socket(connection, server_side=True) as shaken:
            seen.append(shaken.getpeercert(binary_form=True))

    with listening(handle) as peer:
        assert "its SHA-256 is" in why(layout, peer, **world.trust, **shows(world.ours))
    assert seen == [None]


def test_a_name_that_cannot_be_one_is_said(layout: DataLayout, world: World) -> None:
    with listening(hears(speaking(world.pacs))) as peer:
        assert why(layout, peer, tls_name=".", **world.trust) == "'.' cannot be the name in a certificate"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("trusted", [False, True], ids=["alone", "with ca_file"])
def test_a_peer_with_another_certificate_than_the_pinned_one_gets_not_a_byte(
    layout: DataLayout, world: World, version: str, trusted: bool
) -> None:
    trust = world.trust if trusted else {}
    with listening(hears(speaking(world.pacs, only=version))) as peer:
        told = why(layout, peer, certificate_sha256=(fingerprint(world.ours.der),), **trust)
        assert told.endswith(f"that certificate_sha256 does not name: its SHA-256 is {fingerprint(world.pacs.der)}")
        assert peer.handshakes == 1
    assert peer.data == b""


def test_a_pinned_certificate_of_an_authority_that_ca_file_does_not_name_gets_nothing(
    layout: DataLayout, world: World
) -> None:
    with listening(hears(speaking(world.unknown))) as peer:
        told = why(layout, peer, certificate_sha256=(fingerprint(world.unknown.der),), **world.trust)
        assert told.startswith("its certificate is not signed by an authority in ca_file")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_peer_that_wants_a_certificate_of_ours_and_gets_none_is_understood(
    layout: DataLayout, world: World, version: str
) -> None:
    context = speaking(world.pacs, callers=world.authority, only=version)
    with listening(hears(context)) as peer:
        told = why(layout, peer, **world.trust)
    # TLS 1.2 has no alert for it.
    assert (
        told
        == {
            "1.2": "it refuses the handshake: it may want a certificate of ours, or knows no cipher suite of ours",
            "1.3": "it wants a certificate of ours: set client_certificate_file",
        }[version]
    )


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_peer_that_does_not_know_who_signed_our_certificate_is_understood(
    layout: DataLayout, world: World, version: str
) -> None:
    context = speaking(world.pacs, callers=world.stranger, only=version)
    with listening(hears(context)) as peer:
        told = why(layout, peer, **world.trust, **shows(world.ours))
    assert told == "it does not know the authority that signed our certificate"


def test_a_peer_that_says_that_our_certificate_is_over_is_understood(layout: DataLayout, world: World) -> None:
    over = world.authority.issue("over", days=-1)
    with listening(hears(speaking(world.pacs, callers=world.authority))) as peer:
        told = why(layout, peer, **world.trust, **shows(over))
    assert told == "our certificate has expired, it says"


def test_a_peer_that_speaks_tls_1_1_only_gets_nothing(layout: DataLayout, world: World) -> None:
    with listening(hears(speaking(world.pacs, only="1.1"))) as peer:
        assert why(layout, peer, **world.trust) == "it does not speak TLS 1.2 or later"


def test_a_peer_that_speaks_tls_1_2_gets_nothing_where_1_3_is_the_least(layout: DataLayout, world: World) -> None:
    strict = QUICK.model_copy(update={"tls_minimum": "1.3"})
    with listening(hears(speaking(world.pacs, only="1.2"))) as peer:
        assert why(layout, peer, strict, **world.trust) == "it does not speak TLS 1.3"


def test_a_plain_peer_on_the_tls_port_is_understood(layout: DataLayout, world: World) -> None:
    with listening(refuses_pdus) as peer:
        assert why(layout, peer, **world.trust) == f"it answers, but not in TLS: is {peer.port} its TLS port?"


def test_a_peer_that_hangs_up_in_the_handshake_is_understood(layout: DataLayout, world: World) -> None:
    with listening(hangs_up) as peer:
        assert why(layout, peer, **world.trust).startswith(f"it hangs up in the TLS handshake: is {peer.port} its TLS")


def test_a_peer_that_hangs_up_behind_the_handshake_is_understood(layout: DataLayout, world: World) -> None:
    with listening(leaves(speaking(world.pacs))) as peer:
        told = why(layout, peer, **world.trust)
    assert told == "it hangs up behind the TLS handshake: does it accept our certificate?"


def test_a_peer_that_never_answers_the_handshake_is_left(layout: DataLayout, world: World) -> None:
    with listening(says_nothing) as peer:
        told = why(layout, peer, ON_ITS_WAY, **world.trust)
        assert told == f"it does not answer the TLS handshake: is {peer.port} its TLS port?"


def test_a_peer_that_drips_its_handshake_is_left(layout: DataLayout, world: World) -> None:
    """Each byte comes in time; all of them would take for ever."""
    with listening(drips) as peer:
        told = why(layout, peer, ON_ITS_WAY, **world.trust)
        assert told == f"it does not answer the TLS handshake: is {peer.port} its TLS port?"


def test_a_peer_that_wants_tls_and_is_called_without_is_understood(layout: DataLayout) -> None:
    with listening(wants_tls) as peer:
        assert why(layout, peer, tls=False) == "it answers in TLS: set tls for it"


def test_nobody_listening_is_said_as_without_tls(layout: DataLayout, world: World) -> None:
    told = why(layout, Listening(free_port()), **world.trust)
    assert told == "Connection refused"


def test_a_file_that_is_gone_is_named_and_its_setting(layout: DataLayout, world: World, tmp_path: Path) -> None:
    gone = {"client_certificate_file": tmp_path / "gone.pem", "client_key_file": world.ours.key}
    with listening(hears(speaking(world.pacs))) as peer:
        assert why(layout, peer, **world.trust, **gone) == (
            f"cannot read {tmp_path}/gone.pem: No such file or directory (client_certificate_file of destination pacs)"
        )
        assert peer.handshakes == 0


def alerts(layout: DataLayout) -> list[str]:
    """What the audit trail says of security; everything in it is valid."""
    return [audited.words(message) for message in audited.named(audited.of_node(layout), "Security Alert")]


def test_a_peer_with_a_certificate_of_somebody_else_is_in_the_audit_trail(layout: DataLayout, world: World) -> None:
    with listening(hears(speaking(world.unknown))) as peer:
        told = why(layout, peer, **world.trust)
    (alert,) = alerts(layout)
    assert told in alert


def test_a_peer_with_another_certificate_than_the_pinned_one_is_in_the_audit_trail(
    layout: DataLayout, world: World
) -> None:
    with listening(hears(speaking(world.pacs))) as peer:
        told = why(layout, peer, certificate_sha256=(fingerprint(world.ours.der),))
    (alert,) = alerts(layout)
    assert told in alert


def test_a_peer_that_is_only_not_there_is_not_in_the_audit_trail(layout: DataLayout, world: World) -> None:
    with listening(hangs_up) as peer:
        why(layout, peer, **world.trust)
    assert alerts(layout) == []
