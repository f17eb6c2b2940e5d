"""An instance's header for tests that do not care what is in it."""

from __future__ import annotations

from m3node.intake.series.header import InstanceHeader

HEADER = InstanceHeader(
    path="1.1/1.2/1.3.dcm",
    sha256="ab",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.3",
    study_instance_uid="1.1",
    series_instance_uid="1.2",
    frame_of_reference_uid="1.4",
    patient_digest="cd",
    modality="CT",
    image_type=("ORIGINAL", "PRIMARY"),
    series_number=None,
    series_description="Bauch ü",
    protocol_name="",
    body_part_examined="",
    manufacturer="",
    patient_position="HFS",
    gantry_tilt=None,
    instance_number=1,
    device_uid="",
    sender="PACS",
    received_at=1.5,
    pixels=None,
    frames=(),
)
