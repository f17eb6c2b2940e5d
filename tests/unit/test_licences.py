"""Apache-2.0 ourselves, and nothing under the GPL comes with us."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

GPL = re.compile(r"(?<![A-Za-z])(A|L)?GPL|GNU (Affero |Lesser |Library )?General Public", re.IGNORECASE)
LESSER = re.compile(r"(?<![A-Za-z])LGPL|GNU (Lesser|Library) General Public", re.IGNORECASE)


def dependencies(of: str) -> Iterator[Distribution]:
    """The distributions that installing ``of`` brings, transitively, with the extras that it names: ``name[extra]``."""
    seen: set[tuple[str, str]] = set()
    told: set[str] = set()
    waiting = [Requirement(of)]
    while waiting:
        wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found = distribution(name)
            if name not in told:
                told.add(name)
                yield found
            for line in found.requires or ():
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    waiting.append(requirement)


def licence_of(found: Distribution) -> str:
    """What the distribution says of its licence: SPDX expression, else classifiers, else the first line of the text."""
    metadata = found.metadata
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    free_text = (metadata.get("License") or "").strip().splitlines()[:1]
    return "; ".join([metadata.get("License-Expression") or "", *classifiers, *free_text]).strip("; ")


def is_gpl(licence: str) -> bool:
    """Whether GPL or AGPL is the only choice; LGPL is another licence, and an ``OR`` leaves the choice to us."""
    choices = re.split(r"\s+OR\s+", licence)
    return all(GPL.search(LESSER.sub("", choice)) for choice in choices)


def test_the_rule_tells_gpl_from_lgpl_and_from_a_choice() -> None:
    assert is_gpl("GPL-3.0-or-later")
    assert is_gpl("License :: OSI Approved :: GNU General Public License v3 (GPLv3)")
    assert is_gpl("AGPL-3.0-only")
    assert not is_gpl("LGPL-2.1-or-later")
    assert not is_gpl("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)")
    assert not is_gpl("GPL-2.0-only OR MIT")
    assert not is_gpl("BSD-3-Clause")


@pytest.mark.parametrize(("of", "at_least"), [("m3node", 15), ("m3node[medgemma]", 35)])
def test_every_dependency_states_a_licence_and_none_is_the_gpl(of: str, at_least: int) -> None:
    licences = {found.name: licence_of(found) for found in dependencies(of)}
    assert len(licences) > at_least  # the walk went through
    assert {name for name, licence in licences.items() if not licence} == set()
    assert {name: licence for name, licence in licences.items() if is_gpl(licence)} == {}


def test_the_decoder_under_the_gpl_is_not_installed_by_us() -> None:
    assert "pylibjpeg-libjpeg" not in {found.name for found in dependencies("m3node")}


def test_we_are_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert distribution("m3node").metadata["License-Expression"] == "Apache-2.0"
