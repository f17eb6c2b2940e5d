"""An archive that is away while much is processed gets everything when it is back, each object once."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from orthanc import start_orthanc

from m3node.evaluation.ct_writer import seeded_uid
from made_series import phantom_series
from ports import free_port
from served import serving

SERIES = 20
EACH = 4
"""Objects of a run: SEG, two SRs, presentation state."""

SETTINGS = """
[listener]
receivers = 2
callers = [{{ae_title = "PACS"}}]
[completeness]
quiet_seconds = 1
[delivery]
retry_first_seconds = 0.5
retry_max_seconds = 4
[[destinations]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {port}
"""


@pytest.mark.slow
def test_the_results_of_twenty_series_wait_for_an_orthanc_that_is_down_and_each_arrives_once(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    binary, port = program("Orthanc"), free_port()
    series = [phantom_series(tmp_path / f"series{seed}", seed) for seed in range(SERIES)]
    with serving(tmp_path / "node", SETTINGS.format(port=port)) as node:
        for files in series:
            node.send(*files)
        box = node.layout.outbox / "orthanc"
        node.until(lambda: len(list(box.glob("*.json"))) == SERIES * EACH, 400)
        assert not list(box.glob("sent/*.json"))
        with start_orthanc(binary, tmp_path / "orthanc", dicom_port=port) as orthanc:
            up = time.monotonic()
            node.until(lambda: len(list(box.glob("sent/*.json"))) == SERIES * EACH, 120)
            print(f"{SERIES * EACH} objects delivered {time.monotonic() - up:.1f} s after Orthanc came up")
            held = Counter(item["MainDicomTags"]["SOPInstanceUID"] for item in orthanc.instances())
        assert not list(box.glob("*.json"))
        assert not list(box.glob("aside/*.json"))
    stored = Counter(re.findall(r"orthanc: stored (\S+) of run", node.log))
    assert len(held) == SERIES * EACH
    assert stored == held
    assert set(held.values()) == {1}
    runs = {f"{seeded_uid(seed, 'series')}.g1" for seed in range(SERIES)}
    assert {path.name for path in node.layout.results.iterdir()} == runs
