"""The newest content of an instance is used, and the same content twice is nothing new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from m3node.errors import InputRejected
from m3node.intake.keeper.revisions import choose
from m3node.intake.series.header import InstanceHeader
from m3node.rejection import Reason
from made_headers import HEADER


def file(sop: str, content: str, at: float) -> InstanceHeader:
    return replace(HEADER, sop_instance_uid=sop, path=f"{sop}.{at}.dcm", sha256=content, received_at=at)


def by_content(calls: list[str] | None = None) -> Callable[[InstanceHeader], str]:
    def digest(header: InstanceHeader) -> str:
        if calls is not None:
            calls.append(header.path)
        if header.sha256.startswith("broken"):
            raise InputRejected(Reason.UNDECODABLE, "cannot be decoded")
        return header.sha256.upper().rstrip("'")

    return digest


def test_instances_without_revisions_are_not_decoded() -> None:
    calls: list[str] = []
    files = (file("1", "a", 1.0), file("2", "a", 2.0))
    assert choose(files, by_content(calls)).used == files
    assert calls == []


def test_other_bytes_with_the_same_content_change_nothing() -> None:
    first, transcoded = file("1", "a", 1.0), file("1", "a'", 2.0)
    assert choose((transcoded, first), by_content()).used == (first,)


def test_other_content_is_used_from_then_on() -> None:
    first, changed, transcoded = file("1", "a", 1.0), file("1", "b", 2.0), file("1", "b'", 3.0)
    assert choose((first, changed, transcoded), by_content()).used == (changed,)


def test_content_that_comes_back_is_the_newest_again() -> None:
    first, changed, back = file("1", "a", 1.0), file("1", "b", 2.0), file("1", "a'", 3.0)
    assert choose((first, changed, back), by_content()).used == (back,)


def test_a_revision_that_cannot_be_decoded_is_passed_over_with_its_reason() -> None:
    first, broken = file("1", "a", 1.0), file("1", "broken", 2.0)
    chosen = choose((first, broken), by_content())
    assert chosen.used == (first,)
    assert [(item.reason, item.subject) for item in chosen.undecodable] == [(Reason.UNDECODABLE, broken.path)]


def test_a_revision_heals_an_instance_that_could_not_be_decoded() -> None:
    broken, whole = file("1", "broken", 1.0), file("1", "a", 2.0)
    assert choose((broken, whole), by_content()).used == (whole,)


@given(
    contents=st.lists(st.tuples(st.sampled_from("123"), st.sampled_from(["a", "a'", "b", "broken"])), max_size=8),
    random=st.randoms(),
)
def test_the_order_in_which_files_are_found_does_not_matter(contents: list[tuple[str, str]], random: Random) -> None:
    files = [file(sop, content, float(at)) for at, (sop, content) in enumerate(contents)]
    shuffled = list(files)
    random.shuffle(shuffled)
    assert choose(files, by_content()) == choose(shuffled, by_content())
