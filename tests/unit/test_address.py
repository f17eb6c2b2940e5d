"""A peer is read from ``AE@HOST:PORT`` as people write it, or it is said what is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.delivery.address import Peer, parse_peer
from m3node.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ORTHANC@127.0.0.1:4242", Peer("ORTHANC", "127.0.0.1", 4242)),
        ("PACS@pacs.hospital.example:104", Peer("PACS", "pacs.hospital.example", 104)),
        ("PACS@[::1]:104", Peer("PACS", "::1", 104)),
        ("A@B@host:1", Peer("A@B", "host", 1)),
        (" TWO WORDS @host:65535", Peer("TWO WORDS", "host", 65535)),
    ],
)
def test_a_peer_is_read(text: str, peer: Peer) -> None:
    assert parse_peer(text) == peer
    assert parse_peer(str(peer)) == peer


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("127.0.0.1:4242", "names no AE title"),
        ("@host:104", "is no AE title"),
        ("SEVENTEEN_LETTERS@host:104", "is no AE title"),
        ("BACK\\SLASH@host:104", "is no AE title"),
        ("ÄE@host:104", "is no AE title"),
        ("PACS@host", "needs a host and a port"),
        ("PACS@:104", "needs a host and a port"),
        ("PACS@[]:104", "names no host"),
        ("PACS@two words:104", "names no host"),
        ("PACS@[[::1]]:104", "names no host"),
        ("PACS@[host:104", "names no host"),
        ("PACS@host]:104", "names no host"),
        ("PACS@::1:104", "in brackets"),
        ("PACS@host:0", "is no port"),
        ("PACS@host:65536", "is no port"),
        ("PACS@host:dicom", "is no port"),
        ("PACS@host:１０４", "is no port"),
        ("PACS@host:-1", "is no port"),
    ],
)
def test_what_is_wrong_with_a_peer_is_said(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_peer(text)


NEARLY_PEERS = st.from_regex(r"[ -~]{0,18}@[][a-z0-9.:@ ]{0,10}:[0-9]{1,6}", fullmatch=True)
"""A third of them are peers; of any text next to none is."""


@given(st.text(max_size=40) | NEARLY_PEERS)
def test_any_text_is_a_peer_that_is_written_as_it_is_read_or_a_settings_error(text: str) -> None:
    try:
        peer = parse_peer(text)
    except ConfigError:
        return
    assert 1 <= len(peer.ae_title) <= 16
    assert 1 <= peer.port <= 65535
    assert parse_peer(str(peer)) == peer
