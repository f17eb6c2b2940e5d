"""A caller is known by everything that the settings say of it, and a stranger cannot tell what was wrong."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.intake.receive.admission import Admission, Admitted, Refusal, admission_of, within
from m3node.intake.receive.peer import Peer, PeerTls, address_of, plain_address
from m3node.settings import Caller, Destination, ListenerSettings, Settings
from m3node.settings.tls import ListenerTls

OURS, OTHERS = "ab" * 32, "cd" * 32
TLS = ListenerTls(certificate_file=Path("node.pem"), ca_file=Path("ca.pem"))
NO_CERTIFICATES = ListenerTls(certificate_file=Path("node.pem"), client_certificates="none")


def peer(address: str = "10.1.2.3", fingerprint: str | None = None) -> Peer:
    """Somebody on the plain port, or over TLS with a certificate; an empty one for none."""
    return Peer(address, None if fingerprint is None else PeerTls("TLSv1.3", "TLS_AES_256_GCM_SHA384", fingerprint))


def door(*callers: Caller, destinations: tuple[Destination, ...] = (), **listener: Any) -> Admission:
    return admission_of(Settings(listener=ListenerSettings(callers=callers, **listener), destinations=destinations))


def asked(door: Admission, peer: Peer, calling: str = "CT1", called: str = "M3NODE") -> Admitted | Refusal:
    return door.admit(calling=calling, called=called, peer=peer)


def admitted(door: Admission, peer: Peer, calling: str = "CT1") -> Admitted:
    answer = asked(door, peer, calling)
    assert isinstance(answer, Admitted)
    return answer


STRICT = door(
    Caller(ae_title="CT1", addresses=(IPv4Network("10.1.0.0/16"),), tls=True, certificate_sha256=(OURS,)), tls=TLS
)


def test_who_has_title_address_and_certificate_may_store_and_not_report() -> None:
    answer = admitted(STRICT, peer("10.1.255.1", OURS))
    assert (answer.title, answer.may_store, answer.may_report) == ("CT1", True, False)


@pytest.mark.parametrize(
    ("calling", "somebody", "words"),
    [
        pytest.param("CT2", peer("10.1.2.3", OURS), "add it to listener.callers", id="title"),
        pytest.param("ct1", peer("10.1.2.3", OURS), "add it to listener.callers", id="title in lower case"),
        pytest.param("CT1", peer("10.2.0.1", OURS), "not in addresses of listener.callers CT1", id="address"),
        pytest.param("CT1", peer("10.1.2.3"), "it has to come over TLS (listener.callers CT1)", id="plain"),
        pytest.param("CT1", peer("10.1.2.3", OTHERS), f"its certificate (SHA-256 {OTHERS}) is not in", id="pin"),
        pytest.param("CT1", peer("10.1.2.3", ""), "its certificate (none) is not in", id="no certificate"),
    ],
)
@pytest.mark.parametrize("called", ["M3NODE", "OTHER"])
def test_a_stranger_hears_the_same_whatever_is_wrong_and_the_log_says_what(
    calling: str, somebody: Peer, words: str, called: str
) -> None:
    answer = asked(STRICT, somebody, calling, called)
    assert isinstance(answer, Refusal)
    assert (answer.result, answer.source, answer.reason) == (1, 1, 3)
    assert answer.alert == "node authentication"
    assert words in answer.words


def test_who_is_known_and_calls_somebody_else_hears_so() -> None:
    answer = asked(STRICT, peer("10.1.2.3", OURS), called="OTHER")
    assert isinstance(answer, Refusal)
    assert (answer.result, answer.source, answer.reason) == (1, 1, 7)


def test_who_has_to_show_a_certificate_cannot_come_without_tls() -> None:
    pinned = door(Caller(ae_title="CT1", certificate_sha256=(OURS,)), tls=TLS)
    answer = asked(pinned, peer())
    assert isinstance(answer, Refusal)
    assert "it has to come over TLS" in answer.words
    assert admitted(pinned, peer(fingerprint=OURS)).may_store


def test_titles_are_the_same_with_the_spaces_that_fill_them_up() -> None:
    answer = asked(door(Caller(ae_title="CT1")), peer(), "CT1".ljust(16), "M3NODE".ljust(16))
    assert isinstance(answer, Admitted)
    assert answer.title == "CT1"


def test_without_callers_and_destinations_nobody_is_known() -> None:
    assert isinstance(asked(door(), peer()), Refusal)


def pacs(**fields: Any) -> Destination:
    return Destination(**{"name": "pacs", "ae_title": "PACS", "host": "pacs", "commitment": True, **fields})


def reports(door: Admission, somebody: Peer) -> bool:
    answer = asked(door, somebody, "PACS")
    return isinstance(answer, Admitted) and answer.may_report


def test_a_destination_with_commitment_may_report_and_not_store() -> None:
    answer = admitted(door(destinations=(pacs(),)), peer(), "PACS")
    assert (answer.may_store, answer.may_report) == (False, True)
    assert isinstance(asked(door(destinations=(pacs(commitment=False),)), peer(), "PACS"), Refusal)


def test_a_destination_that_is_called_over_tls_reports_over_tls_where_the_listener_has_it() -> None:
    secure = (pacs(tls=True, ca_file=Path("ca.pem")),)
    assert reports(door(destinations=secure), peer())
    both = door(destinations=secure, tls=TLS)
    assert not reports(both, peer())
    assert reports(both, peer(fingerprint=OURS))


def test_a_pinned_destination_reports_with_its_certificate_where_callers_show_one() -> None:
    pinned = (pacs(tls=True, certificate_sha256=(OURS,)),)
    asking = door(destinations=pinned, tls=TLS)
    assert reports(asking, peer(fingerprint=OURS))
    assert not reports(asking, peer(fingerprint=OTHERS))
    assert reports(door(destinations=pinned, tls=NO_CERTIFICATES), peer(fingerprint=""))


def test_a_destination_that_shows_another_certificate_as_a_caller_is_named_among_the_callers() -> None:
    pinned = (pacs(tls=True, certificate_sha256=(OURS,)),)
    named = door(Caller(ae_title="PACS", certificate_sha256=(OTHERS,)), destinations=pinned, tls=TLS)
    assert reports(named, peer(fingerprint=OTHERS))
    assert isinstance(asked(named, peer(fingerprint=OURS), "PACS"), Refusal)


def test_a_destination_that_is_a_caller_reports_from_where_it_may_call() -> None:
    near = Caller(ae_title="PACS", addresses=(IPv4Network("10.1.2.3"),))
    named = door(near, destinations=(pacs(),))
    assert reports(named, peer("10.1.2.3"))
    assert isinstance(asked(named, peer("10.1.2.4"), "PACS"), Refusal)


def test_a_caller_whose_destination_is_called_over_tls_may_store_in_the_clear_and_not_report() -> None:
    answer = admitted(door(Caller(ae_title="PACS"), destinations=(pacs(tls=True),), tls=TLS), peer(), "PACS")
    assert (answer.may_store, answer.may_report) == (True, False)


def test_of_two_destinations_with_one_title_each_may_report() -> None:
    two = (pacs(tls=True, certificate_sha256=(OURS,)), pacs(name="second", tls=True, certificate_sha256=(OTHERS,)))
    both = door(destinations=two, tls=TLS)
    assert reports(both, peer(fingerprint=OURS))
    assert reports(both, peer(fingerprint=OTHERS))
    assert not reports(both, peer(fingerprint="ef" * 32))


def test_a_callers_limits_are_within_those_of_the_listener() -> None:
    small = Caller(
        ae_title="CT1", max_object_mb=20.0, maximum_pdu_size=65536, idle_seconds=30.0, instances_per_minute=60
    )
    large = Caller(ae_title="CT2", max_object_mb=9e9, maximum_pdu_size=16 * 2**20, idle_seconds=9e9)
    both = door(small, large)
    own = admitted(both, peer(), "CT1").limits
    assert (own.max_object_bytes, own.maximum_pdu_size, own.idle_seconds, own.counted) == (20_000_000, 65536, 30, True)
    assert own.max_object_setting == "listener.callers.max_object_mb = 20"
    shared = admitted(both, peer(), "CT2").limits
    assert (shared.max_object_bytes, shared.maximum_pdu_size) == (2_000_000_000, 131072)
    assert (shared.idle_seconds, shared.counted) == (60, False)
    assert shared.max_object_setting == "listener.max_object_mb = 2000"
    assert admitted(door(large, instances_per_minute=1), peer(), "CT2").limits.counted


V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(IPv6Address)
NETWORKS = st.builds(
    lambda address, prefix: (
        ip_network((int(address), prefix % (address.max_prefixlen + 1)), strict=False)
        if isinstance(address, IPv6Address)
        else IPv4Network((int(address), prefix % 33), strict=False)
    ),
    V4 | V6,
    st.integers(0, 128),
)


def mapped(address: IPv4Address) -> str:
    return f"::ffff:{address}"


@given(address=V4, networks=st.lists(NETWORKS, max_size=3))
def test_an_ipv4_address_is_the_same_when_it_is_written_as_ipv6(
    address: IPv4Address, networks: list[IPv4Network | IPv6Network]
) -> None:
    expected = any(isinstance(network, IPv4Network) and address in network for network in networks)
    assert within(str(address), networks) == within(mapped(address), networks)
    assert within(str(address), networks) or not expected


@given(address=V4, prefix=st.integers(0, 32))
def test_a_range_of_ipv4_addresses_is_the_same_when_it_is_written_as_ipv6(address: IPv4Address, prefix: int) -> None:
    plain = IPv4Network((int(address), prefix), strict=False)
    written = IPv6Network(f"::ffff:{plain.network_address}/{96 + prefix}")
    assert within(str(address), [written])
    outside = IPv4Address((int(plain.network_address) - 1) % 2**32)
    assert within(str(outside), [written]) == (outside in plain)


@given(address=V6, prefix=st.integers(0, 128), zone=st.sampled_from(["", "%eth0", "%3"]))
def test_an_ipv6_address_lies_in_its_ranges_whatever_its_zone(address: IPv6Address, prefix: int, zone: str) -> None:
    network = IPv6Network((int(address), prefix), strict=False)
    if address.ipv4_mapped is None:
        assert within(f"{address}{zone}", [network])
    other = IPv6Address(int(address) ^ 1)
    assert within(f"{other}{zone}", [IPv6Network(address)]) is False


@pytest.mark.parametrize(
    ("address", "shown"),
    [("::ffff:10.1.2.3", "10.1.2.3"), ("10.1.2.3", "10.1.2.3"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1%eth0")],
)
def test_an_ipv4_peer_is_shown_by_its_ipv4_address_also_where_both_protocols_are_served(
    address: str, shown: str
) -> None:
    class Connection(socket.socket):
        def getpeername(self) -> tuple[str, int]:
            return address, 104

    with Connection() as connection:
        assert address_of(connection) == shown


@pytest.mark.parametrize("address", ["", "unix", "10.1.2", "localhost"])
def test_what_is_no_address_lies_in_no_range(address: str) -> None:
    assert plain_address(address) is None
    assert not within(address, [IPv4Network("0.0.0.0/0"), IPv6Network("::/0")])
