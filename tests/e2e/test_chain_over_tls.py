"""Orthanc, node and Orthanc over TLS, with certificates of all, while somebody says nothing on the node's port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chain import SILENT, chain

from m3node.evaluation.ct_writer import seeded_uid
from made_series import phantom_series

OBJECTS = 4


def test_a_series_goes_out_and_its_results_come_back_while_silent_connections_are_held(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    slices = phantom_series(tmp_path / "series", 31)
    with chain({"Orthanc": program("Orthanc")}, tmp_path) as peers:
        peers.send(tmp_path / "series")
        peers.wait_for_results(seeded_uid(31, "study"), OBJECTS)
        assert peers.still_silent() == SILENT
        # All that came to the node came over TLS: its caller is not let in otherwise.
        assert f"{len(slices)} new, 0 duplicate, 0 revised, 0 refused" in peers.node.log
