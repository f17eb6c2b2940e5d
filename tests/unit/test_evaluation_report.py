"""What the tables, plots and pictures of an evaluation say of its records."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from m3node.detectors.protocols import DetectorIdentity
from m3node.evaluation.ablation.conditions import Condition, Shown
from m3node.evaluation.ablation.record import Record
from m3node.evaluation.ablation.regions import LiverFrom
from m3node.evaluation.ablation.running import Plan, Protocol, Run, Unusable
from m3node.evaluation.cases.layout import CaseFolder
from m3node.evaluation.cases.reading import Case
from m3node.evaluation.ct_writer import axial_geometry
from m3node.evaluation.report.pictures import choose_cases, shown_slices
from m3node.evaluation.report.plots import best_iou_by_lesion, write_plots
from m3node.evaluation.report.summary import PHANTOM_MARK, PUBLISHED_MARK, Summary, as_json, summarise
from m3node.evaluation.report.tables import markdown, write_tables
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.settings import DetectorSettings, Settings
from made_records import box_at, found, known, record

WHO = DetectorIdentity("someone", "1", "For tests.", weights="sha256:12")


def folder(name: str, *, phantom: bool = False) -> CaseFolder:
    return CaseFolder(name, Path(name), name, False, phantom, None, None, None, None)


def summary_of(
    records: Sequence[Record],
    *,
    unusable: Sequence[Unusable] = (),
    protocol: Protocol = Protocol.WHOLE,
    phantoms: Sequence[str] = (),
) -> Summary:
    conditions = tuple(
        Condition(key, title, Shown.CROP, DetectorSettings())
        for key, title in (("full", "full slice"), ("crop", "crop"))
    )
    plan = Plan(conditions, Settings(), protocol, LiverFrom.PREDICTED, Path("out"))
    names = sorted({item.case for item in records} | {item.case for item in unusable})
    cases = [folder(name, phantom=name in phantoms) for name in names]
    ordered = sorted(records, key=lambda item: ["full", "crop"].index(item.condition))
    return summarise(cases, plan, Run(tuple(ordered), tuple(unusable), {"full": WHO, "crop": WHO}, 0))


# In the crop both lesions of "a" are found, on the whole slice one; the healthy one has a false lesion on the slice.
RECORDS = [
    record("a", truth=[known(0), known(40)], lesions=[found(0), found(80)], condition="full", patient="p", dice=0.4),
    record("a", truth=[known(0), known(40)], lesions=[found(0), found(40)], condition="crop", patient="p", dice=0.8),
    record("b", truth=[], lesions=[found(0)], condition="full", patient="q"),
    record("b", truth=[], condition="crop", patient="q"),
    record("c", truth=None, lesions=[found(0)], condition="full", patient="q"),
    record("c", truth=None, condition="crop", patient="q"),
]


def test_the_json_counts_cases_and_patients_and_compares_with_the_first_condition() -> None:
    told = as_json(summary_of(RECORDS, unusable=[Unusable("d", "torn")]))
    assert told["cases"] == {"lesions": 1, "healthy": 1, "unknown": 1, "patients": 2, "true_lesions": 2}
    assert told["unusable"] == [{"case": "d", "reason": "torn"}]
    assert (told["protocol"], told["liver"], told["label"]) == ("whole", "predicted", "someone, cases")
    assert told["marks"] == ["someone 1 sha256:12", NOT_FOR_CLINICAL_USE]
    full, crop = told["conditions"]
    assert full["minus_first"] == {}
    assert full["metrics"]["recall_3d_0.3"]["value"] == 0.5
    assert full["metrics"]["precision_3d_0.3"]["value"] == pytest.approx(1 / 3)
    assert crop["minus_first"]["recall_3d_0.3"]["value"] == 0.5
    assert crop["minus_first"]["precision_3d_0.3"]["value"] == pytest.approx(2 / 3)
    assert crop["minus_first"]["false_lesions"]["value"] == -1.0
    assert crop["minus_first"]["dice_3d"]["value"] == pytest.approx(0.4)
    assert [point["recall"] for point in crop["froc"]] == [1.0]


def test_only_where_all_used_cases_are_phantoms_are_they_called_so() -> None:
    assert PHANTOM_MARK in summary_of(RECORDS, phantoms="abc").marks
    assert PHANTOM_MARK in summary_of(RECORDS, phantoms="abc", unusable=[Unusable("d", "torn")]).marks
    assert PHANTOM_MARK not in summary_of(RECORDS, phantoms="ab").marks


def test_under_the_published_protocol_nothing_is_said_of_volumes() -> None:
    told = as_json(summary_of(RECORDS, protocol=Protocol.PUBLISHED))
    assert told["marks"][0] == PUBLISHED_MARK
    assert told["liver"] == "truth"
    full, crop = told["conditions"]
    assert not [key for key in full["metrics"] if "3d" in key or key in {"false_lesions", "false_boxes", "liver_dice"}]
    assert set(crop["minus_first"]) == {"best_iou_2d", "hallucination_2d", "recall_2d_0.3", "precision_2d_0.3"}
    assert crop["froc"] == []


def test_the_rows_of_the_csv_are_cases_in_conditions_and_what_could_not_be_used(tmp_path: Path) -> None:
    write_tables(summary_of(RECORDS, unusable=[Unusable("d", "torn, in two")]), tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    keys = (
        "condition",
        "case",
        "patient",
        "kind",
        "true_lesions",
        "found_lesions",
        "recall_3d_0.3",
        "dice_3d",
        "unusable",
    )
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("full", "a", "p", "lesions", "2", "2", "0.5", "0.4", ""),
        ("full", "b", "q", "healthy", "0", "1", "", "", ""),
        ("full", "c", "q", "unknown", "", "1", "", "", ""),
        ("crop", "a", "p", "lesions", "2", "2", "1", "0.8", ""),
        ("crop", "b", "q", "healthy", "0", "0", "", "", ""),
        ("crop", "c", "q", "unknown", "", "0", "", "", ""),
        ("", "d", "", "", "", "", "", "", "torn, in two"),
    ]
    assert {row["note"] for row in rows} == {f"someone 1 sha256:12 {NOT_FOR_CLINICAL_USE}"}
    told = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert told["unusable"] == [{"case": "d", "reason": "torn, in two"}]


def test_the_page_has_every_metric_the_difference_and_what_was_not_used() -> None:
    summary = summary_of(RECORDS, unusable=[Unusable("d", "torn")])
    lines = markdown(summary).splitlines()
    assert (
        "1 case with 2 lesions, 1 healthy, 1 without truth; 2 patients; all slices with liver; predicted liver."
        in lines
    )
    heads = [line for line in lines if line.startswith("| condition |")]
    assert all(sum(f" {metric.title} |" in head for head in heads) >= 1 for metric in summary.metrics)
    at = lines.index("| condition | recall at 0.1 | recall at 0.3 | recall at 0.5 |")
    assert lines[at + 1 : at + 4] == [
        "|---|---|---|---|",
        "| full slice | 0.50 | 0.50 | 0.50 |",
        "| crop | 1.00 | 1.00 | 1.00 |",
    ]
    at = lines.index("## Difference to “full slice”")
    # Best IoU, recall, precision, false lesions, Dice; no condition is compared with itself.
    assert [line for line in lines[at:] if line.startswith(("| crop", "| full"))] == [
        "| crop | +0.00 | +0.50 | +0.67 | -1.00 | +0.40 |"
    ]
    assert lines[-3:] == ["## Not used", "", "- d: torn"]


def test_each_lesion_has_the_best_overlap_of_anything_found_in_its_case() -> None:
    cases = [
        record("a", truth=[known(0, diameter_mm=12.0), known(40, diameter_mm=25.0)], lesions=[found(5), found(2)]),
        record("b", truth=None, lesions=[found(0)]),
    ]
    assert best_iou_by_lesion(cases) == [(12.0, pytest.approx(2 / 3)), (25.0, 0.0)]


def test_a_plot_that_there_is_nothing_for_is_not_left_from_an_earlier_run(tmp_path: Path) -> None:
    assert [path.name for path in write_plots(summary_of(RECORDS), tmp_path)] == ["froc.png", "iou_by_size.png"]
    assert write_plots(summary_of(RECORDS, protocol=Protocol.PUBLISHED), tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_of_all_cases_without_truth_and_of_ill_and_healthy_ones_in_turn() -> None:
    truths = {"a": [known(0)], "b": [known(0)], "c": [known(0)], "h": [], "i": [], "u": None, "v": None}
    summary = summary_of([record(name, truth=truth, condition="full") for name, truth in truths.items()])
    cases = [folder(name) for name in truths]
    chosen = {count: "".join(case.name for case in choose_cases(cases, summary, count)) for count in (0, 1, 3, 4, 9)}
    assert chosen == {0: "", 1: "uva", 3: "uvahb", 4: "uvahbi", 9: "uvahbic"}


def block(k: int, size: tuple[int, int, int]) -> VoxelMask:
    return VoxelMask(shape=(12, 20, 20), start=(k, 2, 2), data=np.ones(size, dtype=np.bool_))


def test_a_picture_shows_where_most_conditions_found_something_and_the_largest_lesion() -> None:
    volume = CTVolume(np.zeros((12, 20, 20), np.int16), axial_geometry((12, 20, 20), (2.0, 1.0, 1.0)), ())
    case = Case(folder("a"), volume, None, (block(8, (2, 4, 4)),))
    unknown = Case(folder("b"), volume, None, None)
    data = np.zeros((5, 9, 9), dtype=np.bool_)
    data[:, 0, 0] = data[1] = True
    liver = VoxelMask(shape=(12, 20, 20), start=(3, 2, 2), data=data)
    region = LiverRegion(liver, liver, LiverSource.LABEL_MAP, "", "for tests")
    # Slice 4 has most boxes, but 5 has some in both conditions.
    both = [
        record(truth=[], boxes=[box_at(0, k=4), box_at(20, k=4), box_at(40, k=4), box_at(0, k=5)]),
        record(truth=[], boxes=[box_at(0, k=5), box_at(0, k=9)]),
    ]
    assert shown_slices(case, region, both) == [5, 8]
    assert shown_slices(unknown, region, both) == [5]
    assert shown_slices(unknown, region, [record(truth=[])]) == [4]  # the liver is largest there
    assert shown_slices(unknown, None, [record(truth=[])]) == [6]
    assert shown_slices(case, None, [record(truth=[], boxes=[box_at(0, k=8)])]) == [8]
