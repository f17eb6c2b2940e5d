"""No patient is in the ledger: there is no column for one, and nothing of him comes into any other."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pydicom

from ledgers import opened_ledger
from m3node.intake.keeper.index import Index, Settled, header_line, settled_line
from m3node.intake.series.manifest import make_manifest, write_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks
from m3node.jobs.ledger.sync import sync
from m3node.jobs.ledger.tables import Base
from m3node.layout import DataLayout
from m3node.settings import Settings
from made_series import bare_series

PATIENT = {
    "PatientName": "Zyxwv^Utsrq",
    "PatientID": "id-4711-zyx",
    "PatientBirthDate": "19470815",
    "PatientAddress": "Elsewhere 1",
    "AccessionNumber": "acc-0815",
    "ReferringPhysicianName": "Ponml^Kjihg",
    "StudyDescription": "asks about Zyxwv",
    "SeriesDescription": "Zyxwv liver",
    "ProtocolName": "for Zyxwv",
}
COLUMNS = {
    "study": "study_instance_uid first_received_at last_received_at",
    "series": "series_instance_uid study_instance_uid state instances first_received_at last_received_at purged_at",
    "instance": "path sop_instance_uid sop_class_uid series_instance_uid sha256 sender received_at",
    "run": "run manifest_key label generation study_instance_uid series_instance_uid priority slices state stage done "
    "total worker outcome lesions reason message supersedes superseded_by created_at started_at finished_at updated_at",
    "object": "sop_instance_uid run kind path sha256 sop_class_uid series_instance_uid study_instance_uid",
    "delivery": "destination name run kind sop_instance_uid study_instance_uid state attempts last_error "
    "transaction_uid queued_at next_at failing_since stored_at finished_at",
    "worker": "slot host pid started_at seen_at detector",
    "mark": "name at",
}
"""Every column there is: whoever adds one says here that no patient is in it."""


def test_every_column_is_known_to_hold_no_patient() -> None:
    columns = {table.name: {column.name for column in table.columns} for table in Base.metadata.tables.values()}
    assert columns == {name: set(names.split()) for name, names in COLUMNS.items()}


def test_nothing_of_the_patient_is_in_the_database_file(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    layout = DataLayout(settings.data_dir)
    layout.create()
    files = bare_series(layout.spool / "study" / "series", 1, **PATIENT)
    assert pydicom.dcmread(files[0]).PatientID == PATIENT["PatientID"]
    headers = [replace(read_header(path, layout.spool), sender="PACS", received_at=1.0) for path in files]
    series = headers[0].series_instance_uid
    facts = [*(header_line(header) for header in headers), settled_line(Settled(len(headers), unfit=False))]
    Index(layout.index).append(series, facts)
    (stack,) = group_stacks(headers)
    write_manifest(make_manifest(stack, root=layout.spool), layout.manifests)
    with opened_ledger(settings) as ledger:
        report = sync(layout, ledger)
    assert (report.series, report.manifests) == (1, 1)
    with sqlite3.connect(layout.database / "ledger.sqlite") as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert series in dump
    for value in (*PATIENT.values(), "Zyxwv", "Utsrq", headers[0].patient_digest):
        assert value not in dump
