"""The whole chain seen from outside: Orthanc → m3node → Orthanc → OHIF in headless Chromium (`make viewers`).

Phantoms are stored into an Orthanc, which forwards them by the sample of configs/peers/orthanc. The node's page is
looked at while it works; what comes back to the archive is opened in OHIF. Prints what was seen, and fails where the
viewer hydrates less than the node found, complains, or asks for anything outside. Pictures go to docs/, or where
``--pictures`` says.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

# Beside pytest, which does so itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from chain import chain
from ohif_page import Viewer, ohif
from ohif_server import VERSION, serving_ohif
from page_pictures import DEAD, STUDY, STUDY_ON_A_PHONE, WORKING, take
from pynetdicom.events import Event

from fake_pacs import fake_pacs
from m3node.evaluation.ct_writer import seeded_uid, write_ct_series
from m3node.evaluation.phantom import SMALL, abdomen_phantom
from made_series import bare_series

ROOT = Path(__file__).resolve().parents[3]
SEED = 1
RESULT_OBJECTS = 4
FEWEST = 2
"""Objects of a series in which there is nothing to measure."""
NOT_AUTHORISED = 0x0124
LESION = 3
"""Of the phantom's five, the one that the pictures show: large, and well inside."""
PICTURES = {"trackedMeasurements": "ohif-sr.png", "panelSegmentation": "ohif-seg.png"}
"""By the panel that is open. Those of the status page are in page_pictures.py."""
RESEARCH = """
[[destinations]]
name = "research"
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
"""


def main() -> None:
    """Run the chain and look."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", type=Path, default=ROOT / "docs")
    pictures = arguments.parse_args().pictures
    pictures.mkdir(parents=True, exist_ok=True)
    programs = {name: _program(name) for name in ("Orthanc", "nginx", "chromium", "npm")}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, fake_pacs(_refuses_heads) as research:
        work = Path(folder)
        planted = _write_series(work)
        study = seeded_uid("lesions", "study")
        with chain(programs, work, RESEARCH.format(port=research.port)) as peers:
            page = partial(take, programs["chromium"], peers.page, folder=pictures)
            for series in ("head", "healthy"):
                peers.send(work / series)
                peers.wait_for_results(seeded_uid(series, "study"), FEWEST)
            page("/dead", shown=DEAD)
            peers.send(work / "lesions")
            page("/", shown=WORKING)
            peers.wait_for_results(study, RESULT_OBJECTS)
            found = peers.node.findings(f"{seeded_uid('lesions', 'series')}.g1")["lesions"]
            print(f"Orthanc → m3node → Orthanc over TLS: {len(found)} lesions of a phantom with {planted}")
            print(f"meanwhile {peers.still_silent()} connections to the TLS port said nothing")
            page(f"/studies/{study}", shown=STUDY)
            page(f"/studies/{study}", shown=STUDY_ON_A_PHONE)
            with (
                serving_ohif(programs["nginx"], work / "ohif", peers.archive.http_port) as address,
                ohif(programs["chromium"], address) as viewer,
            ):
                wrong = _look(viewer, study, len(found), pictures)
    for one in wrong:
        print(f"WRONG: {one}")
    sys.exit(1 if wrong else 0)


def _refuses_heads(event: Event) -> int:
    """Answer as an archive that has its reasons, so that there are dead letters to be shown."""
    return NOT_AUTHORISED if event.dataset.StudyInstanceUID == seeded_uid("head", "study") else 0x0000


def _write_series(work: Path) -> int:
    """Write patients with lesions, with a healthy liver and with none in view; return how many lesions there are."""
    phantom = abdomen_phantom(seed=SEED)
    write_ct_series(work / "lesions", np.asarray(phantom.hu), phantom.geometry, seed="lesions")
    healthy = abdomen_phantom(seed=SEED, healthy=True, **SMALL)
    named: dict[str, Any] = {"PatientName": "Phantom^Healthy", "PatientID": "PHANTOM-2"}
    write_ct_series(work / "healthy", np.asarray(healthy.hu), healthy.geometry, seed="healthy", attributes=named)
    head = {"PatientName": "Phantom^Head", "PatientID": "PHANTOM-3", "StudyDescription": "Head CT"}
    bare_series(work / "head", "head", **head)
    return len(phantom.lesions)


def _look(viewer: Viewer, study: str, lesions: int, pictures: Path) -> list[str]:
    """Open, hydrate, count and take the pictures; return what is not as it should be."""
    viewer.open(study)
    viewer.hydrate("m3node segmentation")
    viewer.hydrate("m3node lesions")
    measurements, segments = viewer.measurements(), viewer.segments()
    print(f"OHIF {VERSION}: {len(measurements)} measurements hydrated; {len(segments)} segments: {', '.join(segments)}")
    wrong = []
    if len(measurements) != lesions or not measurements:
        wrong.append(f"{len(measurements)} measurements hydrated of {lesions} lesions")
    if len(segments) != lesions + 1:
        wrong.append(f"{len(segments)} segments of a liver and {lesions} lesions")
    if measurements:
        viewer.jump_to(min(LESION, len(measurements)))
        for panel, name in PICTURES.items():
            viewer.picture(pictures / name, panel=panel)
            print(f"wrote {pictures / name}")
    wrong += [f"the viewer complains: {one}" for one in viewer.complaints]
    wrong += [f"something outside was asked for: {one}" for one in viewer.elsewhere]
    print(f"errors of the console: {len(viewer.complaints)}; requests to elsewhere: {len(viewer.elsewhere)}")
    return wrong


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise SystemExit(
            f"the program {name} is missing; on Debian: apt-get install --no-install-recommends "
            "orthanc orthanc-dicomweb chromium fonts-liberation nginx-light npm"
        )
    return found


if __name__ == "__main__":
    main()
