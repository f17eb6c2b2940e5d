"""C-STORE over TLS: results arrive, and go on arriving when certificates are renewed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from delivering import IMPATIENT, go, left, queue, queue_one, sent
from tls_peers import World, shows, speaking

from certified import Authority, Shown, encrypted
from fake_pacs import fake_pacs
from m3node.delivery.rounds import Round
from m3node.delivery.state import DeliveryState
from m3node.layout import DataLayout
from m3node.tls.contexts import fingerprint
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.made(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("mutual", [False, True], ids=["server", "mutual"])
def test_a_run_arrives_over_one_association(layout: DataLayout, world: World, version: str, mutual: bool) -> None:
    context = speaking(world.pacs, callers=world.authority if mutual else None, only=version)
    with fake_pacs(tls=context) as pacs:
        to = pacs.destination(tls=True, **world.trust, **shows(world.ours))
        queue(layout, to, size=300_000)
        # A session ticket, which TLS 1.3 sends of its own accord, is no answer: who waits for its rest never speaks.
        assert go(layout, to) == Round(stored=4)
        assert pacs.associations == 1
    assert sent(layout) == {"segmentation.seg", "report.sr", "volumes.sr", "presentation.pr"}
    assert all(len(content) > 300_000 for content in pacs.kept.values())


def test_a_key_with_a_password_is_read(layout: DataLayout, world: World, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    ours = {
        "client_certificate_file": world.ours.certificate,
        "client_key_file": encrypted(world.ours.key, "s3cret"),
        "client_key_password_file": tmp_path / "password",
    }
    with fake_pacs(tls=speaking(world.pacs, callers=world.authority)) as pacs:
        to = pacs.destination(tls=True, **world.trust, **ours)
        queue_one(layout, to)
        assert go(layout, to) == Round(stored=1)


def test_the_name_that_the_settings_give_is_the_one_that_counts(layout: DataLayout, world: World) -> None:
    with fake_pacs(tls=speaking(world.pacs)) as pacs:
        to = pacs.destination(tls=True, tls_name="localhost", **world.trust)
        queue_one(layout, to)
        assert go(layout, to) == Round(stored=1)


@pytest.mark.parametrize("trusted", [False, True], ids=["alone", "with ca_file"])
def test_a_pinned_certificate_counts_whatever_its_name(layout: DataLayout, world: World, trusted: bool) -> None:
    pins = (fingerprint(world.ours.der), fingerprint(world.pacs.der))
    with fake_pacs(tls=speaking(world.pacs)) as pacs:
        trust = world.trust if trusted else {}
        to = pacs.destination(tls=True, tls_name="elsewhere.example", certificate_sha256=pins, **trust)
        queue_one(layout, to)
        assert go(layout, to) == Round(stored=1)


def replaced(shown: Shown, by: Shown) -> None:
    """Renew a certificate as certificate agents do: by a new file of the same name."""
    for old, new in ((shown.key, by.key), (shown.certificate, by.certificate)):
        fresh = old.with_suffix(".new")
        fresh.write_bytes(new.read_bytes())
        os.replace(fresh, old)


def test_delivery_goes_on_by_itself_when_our_certificate_is_renewed_on_disk(layout: DataLayout, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "own")
    ours = authority.issue("m3node", days=-1)
    with fake_pacs(tls=speaking(authority.issue("pacs"), callers=authority)) as pacs:
        to = pacs.destination(tls=True, ca_file=authority.file, **shows(ours))
        queue(layout, to)
        assert "our certificate has expired" in go(layout, to).unreachable
        replaced(ours, authority.issue("renewed"))
        wait_for(lambda: go(layout, to) and not left(layout))
    assert len(sent(layout)) == 4


def test_delivery_goes_on_by_itself_when_the_peers_new_authority_is_put_into_its_file(
    layout: DataLayout, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    with fake_pacs(tls=speaking(new.issue("pacs"))) as pacs:
        to = pacs.destination(tls=True, ca_file=old.file)
        queue(layout, to)
        assert "is not signed by an authority in ca_file" in go(layout, to).unreachable
        old.file.write_bytes(old.file.read_bytes() + new.file.read_bytes())
        wait_for(lambda: go(layout, to) and not left(layout))
    assert len(sent(layout)) == 4


def test_a_peer_that_never_answers_an_object_is_left_over_tls_as_well(layout: DataLayout, world: World) -> None:
    release = threading.Event()
    with fake_pacs(lambda event: release.wait(60) and 0, tls=speaking(world.pacs)) as pacs:
        to = pacs.destination(tls=True, **world.trust)
        queue_one(layout, to)
        assert go(layout, to, IMPATIENT) == Round(put_off=1)
        (entry,) = left(layout).values()
        assert entry.state is DeliveryState.UNKNOWN
        release.set()
