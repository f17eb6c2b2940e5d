from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from orthanc import start_orthanc

from fake_pacs import CLASS_OF, make_run
from m3node.cli.main import main
from m3node.delivery.courier import Courier
from m3node.delivery.queueing import enqueue
from m3node.delivery.rounds import Round, deliver_due
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import Destination, Settings


def test_orthanc_keeps_every_kind_of_result_in_its_study_as_it_was_built(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    objects = make_run(layout, "1.2.3.g1", list(ObjectKind))
    with start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc:
        for name, sr in (("new", "comprehensive3d"), ("old", "enhanced")):
            to = Destination(name=name, ae_title="ORTHANC", host="127.0.0.1", port=orthanc.dicom_port, sr=sr)
            enqueue(layout, "1.2.3.g1", objects, [to])
            settings = Settings(data_dir=layout.root, destinations=(to,))
            courier = Courier(settings)
            # All but the two reports of the other kind.
            assert deliver_due(layout, to, settings, courier) == Round(stored=len(objects) - 2)
            courier.close()
        kept = orthanc.instances(objects[0].study_instance_uid)
        assert sorted(item["SOPClassUID"] for item in kept) == sorted(CLASS_OF.values())
        by_uid = {item.sop_instance_uid: item.path for item in objects}
        for item in kept:
            arrived = pydicom.dcmread(pydicom.filebase.DicomBytesIO(orthanc.file(item["ID"])))
            assert arrived == pydicom.dcmread(by_uid[item["MainDicomTags"]["SOPInstanceUID"]])


def test_echo_and_send_work_with_orthanc(
    tmp_path: Path, test_data: Path, program: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    with start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc:
        peer = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
        assert main(["echo", peer]) == 0
        assert main(["send", str(test_data / "ct_liver_j2k"), peer]) == 0
        assert "20 of 20 objects stored" in capsys.readouterr().out
        assert len(orthanc.instances()) == 20
