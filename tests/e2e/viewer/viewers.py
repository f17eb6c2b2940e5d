"""The whole chain seen from outside: Orthanc → m3node → Orthanc → OHIF in headless Chromium (`make viewers`).

A phantom with five lesions is stored into an Orthanc, which forwards it by the sample of configs/peers/orthanc; what
comes back to the archive is opened in OHIF. Prints what was seen, and fails where the viewer hydrates less than the
node found, complains, or asks for anything outside. Pictures go to docs/, or where ``--pictures FOLDER`` says.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

# Beside pytest, which does so itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from chain import chain
from ohif_page import Viewer, ohif
from ohif_server import VERSION, serving_ohif

from m3node.evaluation.ct_writer import seeded_uid, write_ct_series
from m3node.evaluation.phantom import abdomen_phantom

ROOT = Path(__file__).resolve().parents[3]
SEED = 1
RESULT_OBJECTS = 4
LESION = 3
"""Of the phantom's five, the one that the pictures show: large, and well inside."""
PICTURES = {"trackedMeasurements": "ohif-sr.png", "panelSegmentation": "ohif-seg.png"}
"""By the panel that is open: all files that this writes."""


def main() -> None:
    """Run the chain and look."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", type=Path, default=ROOT / "docs")
    pictures = arguments.parse_args().pictures
    pictures.mkdir(parents=True, exist_ok=True)
    programs = {name: _program(name) for name in ("Orthanc", "nginx", "chromium", "npm")}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        phantom = abdomen_phantom(seed=SEED)
        write_ct_series(work / "series", np.asarray(phantom.hu), phantom.geometry, seed=SEED)
        with chain(programs, work) as peers:
            peers.send(work / "series")
            peers.wait_for_results(RESULT_OBJECTS)
            found = peers.node.findings(f"{seeded_uid(SEED, 'series')}.g1")["lesions"]
            print(f"Orthanc → m3node → Orthanc over TLS: {len(found)} lesions of a phantom with {len(phantom.lesions)}")
            print(f"meanwhile {peers.still_silent()} connections to the TLS port said nothing")
            address = peers.archive.http_port
            with (
                serving_ohif(programs["nginx"], work / "ohif", address) as viewer_at,
                ohif(programs["chromium"], viewer_at) as viewer,
            ):
                wrong = _look(viewer, seeded_uid(SEED, "study"), len(found), pictures)
    for one in wrong:
        print(f"WRONG: {one}")
    sys.exit(1 if wrong else 0)


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
