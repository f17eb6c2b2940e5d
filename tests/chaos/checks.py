"""What must hold after any chaos: nothing acknowledged is lost, everything is answered, nothing is sent twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from archive import Archive

import audited
from m3node.delivery.state import DeliveryState
from part10_file import split_file
from served import ServedNode

FORBIDDEN = ("database is locked", "Traceback", "unexpected", "stumbled over")
"""What no log may say, whoever was killed."""


@dataclass
class Answers:
    """What the runs say.

    Attributes
    ----------
    objects : dict of str to str
        SHA-256 of each object's data set as it was built, by SOP Instance UID.
    newest : set of str
        The runs to which nothing is newer.
    """

    series: int = 0
    answered: int = 0
    generations: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    objects: dict[str, str] = field(default_factory=dict)
    newest: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def and_those_of(self, others: Answers) -> Answers:
        """Both."""
        return Answers(
            self.series + others.series,
            self.answered + others.answered,
            self.generations + others.generations,
            self.outcomes + others.outcomes,
            self.objects | others.objects,
            self.newest | others.newest,
            self.faults + others.faults,
        )


def read_answers(node: ServedNode, series: Sequence[str], slices: int) -> Answers:
    """Read ``run.json`` of every series, each of which has a liver and nothing wrong with it.

    A series whose sender was kept waiting by a kill for longer than the quiet time has a generation of what had come
    by then. All of them must have ended, none alike and none with a failure; the last one must hold all slices, and
    have objects.
    """
    answers = Answers(series=len(series))
    for uid in series:
        generations = node.manifests_of(uid)
        whole = len(generations[-1].slices) if generations else 0
        if whole != slices:
            answers.faults.append(f"the last of {len(generations)} generations of {uid} has {whole} slices")
            continue
        runs = [Path(manifest.file_name).stem for manifest in generations]
        if open_ones := [run for run in runs if not node.answered(run)]:
            answers.faults.append(f"runs that have not ended: {open_ones}")
            continue
        if len({manifest.key for manifest in generations}) != len(generations):
            answers.faults.append(f"one generation of {uid} is another one again: {runs}")
        answers.generations += len(runs)
        answers.newest.add(runs[-1])
        for run in runs:
            record = json.loads((node.layout.results / run / "run.json").read_text())
            if record["failure"]:
                answers.faults.append(f"run {run} failed: {record['failure']}")
            for item in record["objects"]:
                data_set = split_file(node.layout.results / run / item["file"])[1]
                answers.objects[item["sop_instance_uid"]] = hashlib.sha256(data_set).hexdigest()
        # The last one's record, to which nothing is newer.
        if not record["objects"]:
            answers.faults.append(f"run {runs[-1]} has no objects: {record['rejection']}")
            continue
        answers.answered += 1
        answers.outcomes[record["outcome"]] += 1
    known = {Path(manifest.file_name).stem for manifest in node.manifests}
    for folder in node.layout.results.iterdir():
        # What was not fit to be looked at, as too few slices are, has a reason and no manifest.
        if folder.name not in known and not node.findings(folder.name).get("rejection"):
            answers.faults.append(f"results of no manifest, and no reason: {folder.name}")
    return answers


def check(
    node: ServedNode,
    answers: Answers,
    archives: Sequence[Archive],
    acknowledged: Sequence[Path],
    sent: Sequence[Path],
) -> list[str]:
    """Return what does not hold."""
    faults = list(answers.faults)
    faults += _received(node, acknowledged, sent)
    for archive in archives:
        faults += _delivered(node, archive, answers)
    faults += _audited(node, archives, acknowledged)
    faults += [f"the log says {words!r}" for words in FORBIDDEN if words in node.log]
    return faults


def _received(node: ServedNode, acknowledged: Sequence[Path], sent: Sequence[Path]) -> list[str]:
    faults = []
    if sorted(acknowledged) != sorted(sent):
        faults.append(f"{len(acknowledged)} of {len(sent)} instances were acknowledged")
    spooled = {path.name: path for path in node.layout.spool.rglob("*.dcm")}
    missing = differing = 0
    for path in acknowledged:
        uid = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
        kept = spooled.get(f"{uid}.dcm")
        if kept is None:
            missing += 1
        elif split_file(kept)[1] != split_file(path)[1]:
            differing += 1
    if missing or differing or len(spooled) != len(set(acknowledged)):
        faults.append(f"acknowledged instances: {missing} missing, {differing} differ; {len(spooled)} files are kept")
    return faults


def _delivered(node: ServedNode, archive: Archive, answers: Answers) -> list[str]:
    faults = []
    if archive.differing:
        faults.append(f"{archive.name}: {len(archive.differing)} objects were sent in more than one version")
    if any(archive.kept[uid] != {built} for uid, built in answers.objects.items() if uid in archive.kept):
        faults.append(f"{archive.name}: an object there is not what was built")
    box = node.layout.outbox / archive.name
    aside = {entry["sop_instance_uid"]: entry for entry in _entries(box / "aside")}
    if dead := [entry for entry in aside.values() if entry["state"] != DeliveryState.CANCELLED]:
        faults.append(f"{archive.name}: {len(dead)} deliveries are set aside")
    if lost := [entry for entry in aside.values() if entry["run"] in answers.newest]:
        faults.append(f"{archive.name}: {len(lost)} deliveries were taken back to which nothing is newer")
    # What a newer generation took back may have arrived, its answer lost, or not.
    wanted = answers.objects.keys() - aside.keys()
    missing, strange = wanted - archive.kept.keys(), archive.kept.keys() - answers.objects.keys()
    if missing or strange:
        faults.append(f"{archive.name}: {len(missing)} objects never arrived, {len(strange)} are of no run")
    sent = _entries(box / "sent")
    states = Counter(entry["state"] for entry in sent)
    end = DeliveryState.CONFIRMED if archive.commits else DeliveryState.SENT
    if states != Counter({end.value: len(wanted)}):
        faults.append(f"{archive.name}: its outbox says {dict(states)} of {len(wanted)} objects")
    if early := {entry["sop_instance_uid"] for entry in sent} - archive.committed if archive.commits else ():
        faults.append(f"{archive.name}: {len(early)} objects are confirmed to which it never committed")
    return faults


def _audited(node: ServedNode, archives: Sequence[Archive], acknowledged: Sequence[Path]) -> list[str]:
    """Whatever died in between, each transfer is in the audit trail, those out no more often than they happened."""
    came: Counter[str] = Counter()
    went = 0
    for message in audited.named(audited.of_node(node.layout), "DICOM Instances Transferred"):
        count = sum(audited.sop_classes(message).values())
        if audited.participant(message, "Source").get("UserName") != "m3node deliver":
            came[audited.object_id(message, "110180")] += count
        elif audited.outcome(message) == "0":
            went += count
    studies = Counter(
        str(pydicom.dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID) for path in acknowledged
    )
    faults = [
        f"audit trail: {came[uid]} of {count} instances of study {uid} came in"
        for uid, count in studies.items()
        if came[uid] < count
    ]
    arrived = sum(len(_entries(node.layout.outbox / archive.name / "sent")) for archive in archives)
    offered = sum(archive.offered.total() for archive in archives)
    if not arrived <= went <= offered:
        faults.append(f"audit trail: {went} objects went out; {arrived} have arrived, of {offered} that were offered")
    return faults


def _entries(folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]
