"""What a person hands over, a folder, a ZIP or a file: found out what is in it, and what of it will be answered."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID

from m3node.errors import InputRejected
from m3node.identity import DEVICE_UID
from m3node.intake.folder.archive import unpack_zip
from m3node.intake.series import sop_classes
from m3node.intake.series.eligibility import judge
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, StackKey, make_manifest
from m3node.intake.series.reading import read_headers
from m3node.intake.series.seg_reference import read_seg_reference
from m3node.intake.series.selection import select
from m3node.intake.series.stacks import group_stacks
from m3node.progress import Progress
from m3node.rejection import Reason, Rejection
from m3node.settings import Settings

_log = logging.getLogger(__name__)

_STAGE = "reading headers"


@dataclass(frozen=True, slots=True)
class Survey:
    """What an input holds.

    Attributes
    ----------
    manifests : tuple of Manifest
        Stacks to be answered, by key, each with the liver SEGs that reference its series.
    rejections : tuple of (StackKey or None, Rejection)
        Everything that is not used, with its reason; the key is None for what is no stack.
    """

    manifests: tuple[Manifest, ...]
    rejections: tuple[tuple[StackKey | None, Rejection], ...]


@contextmanager
def open_input(path: Path, *, max_unpacked_bytes: int, max_members: int) -> Iterator[Path]:
    """Make a folder of the input for as long as it is worked on.

    Parameters
    ----------
    path : Path
        A folder, a ZIP, or a single file. It is not changed.
    max_unpacked_bytes, max_members : int
        Limits on a ZIP.

    Yields
    ------
    Path
        The folder itself, or a temporary one.

    Raises
    ------
    InputRejected
        ``UNREADABLE`` when there is no such thing; what `unpack_zip` raises.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is neither a folder nor a file that can be read")
    with tempfile.TemporaryDirectory(prefix="m3node-input-") as temporary:
        folder = Path(temporary)
        if _is_zip(path):
            unpack_zip(path, folder, max_unpacked_bytes=max_unpacked_bytes, max_members=max_members)
        else:
            (folder / path.name).symlink_to(path.resolve())
        yield folder


def survey(root: Path, settings: Settings, progress: Progress | None = None) -> Survey:
    """Read the headers of every file below ``root`` and decide what is answered.

    Our own results, recognised by their Device UID, are set aside. Of several files with one SOP Instance UID the
    newest is used (by its time of change, then by name).

    Parameters
    ----------
    root : Path
        A folder.
    settings : Settings
        ``eligibility`` and ``selection`` count.
    progress : callable, optional
        Called with (stage, files done, files in all).
    """
    paths = _files(root)
    headers: list[InstanceHeader] = []
    rejections: list[tuple[StackKey | None, Rejection]] = []
    if not paths:
        rejections.append((None, Rejection(Reason.NOT_DICOM, f"{root.name} holds no files", root.name)))
    for number, found in enumerate(read_headers(paths, root), start=1):
        if isinstance(found, Rejection):
            rejections.append((None, found))
            # The message names the file, and people name files after patients: the log does without.
            _log.info("not used (%s): a file of the input, named in findings.json", found.reason)
        elif (unused := _unused(found)) is not None:
            rejections.append((None, unused))
        else:
            headers.append(found)
        if progress is not None:
            progress(_STAGE, number, len(paths))
    headers, older = _newest(headers, root)
    rejections += [(None, rejection) for rejection in older]
    segs, unusable = _segs_by_series(headers, root)
    rejections += [(None, rejection) for rejection in unusable]
    manifests: list[Manifest] = []
    answered: set[str] = set()
    for stack in group_stacks(headers):
        refusal = judge(stack, settings.eligibility) or select(stack, settings.selection)
        if refusal is not None:
            rejections.append((stack.key, refusal))
            continue
        series = stack.key.series_instance_uid
        manifests.append(make_manifest(stack, root=root, liver_segs=segs.get(series, ())))
        answered.add(series)
    rejections += [(None, rejection) for rejection in _unreferenced(segs, answered)]
    unnamed = {name.relative_to(root).as_posix() for name in paths} | {root.name}
    for _, rejection in rejections:
        if rejection.subject not in unnamed:
            _log.info("not used (%s): %s", rejection.reason, rejection.message)
    return Survey(tuple(manifests), tuple(rejections))


def _is_zip(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(2) == b"PK" and zipfile.is_zipfile(path)
    except OSError as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} cannot be read: {error.strerror}") from error


def _files(root: Path) -> list[Path]:
    """Regular files below the root, in the order of their names; a pipe or socket would never end."""
    found = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    return sorted(path for path in found if path.is_file())


def _unused(header: InstanceHeader) -> Rejection | None:
    if header.device_uid == DEVICE_UID:
        return Rejection(
            Reason.OWN_OBJECT,
            f"instance {header.sop_instance_uid} is a result of m3node's own and is never used as input",
            header.sop_instance_uid,
        )
    if header.sop_class_uid in sop_classes.CT or header.sop_class_uid == sop_classes.SEGMENTATION:
        return None
    return Rejection(
        Reason.NOT_CT,
        f"instance {header.sop_instance_uid} is no CT but of SOP class {UID(header.sop_class_uid).name}",
        header.sop_instance_uid,
    )


def _newest(headers: list[InstanceHeader], root: Path) -> tuple[list[InstanceHeader], list[Rejection]]:
    by_uid: dict[str, list[InstanceHeader]] = defaultdict(list)
    for header in headers:
        by_uid[header.sop_instance_uid].append(header)
    kept: list[InstanceHeader] = []
    rejections: list[Rejection] = []
    for uid, revisions in by_uid.items():
        newest = max(revisions, key=lambda header: _age(header, root))
        kept.append(newest)
        others = {header.sha256 for header in revisions} - {newest.sha256}
        if others:
            rejections.append(
                Rejection(
                    Reason.NOT_SELECTED,
                    f"instance {uid} is there {1 + len(others)} times with different content; the newest file is used",
                    uid,
                )
            )
    return kept, rejections


def _age(header: InstanceHeader, root: Path) -> tuple[int, str]:
    return (root / header.path).stat().st_mtime_ns, header.path


def _segs_by_series(
    headers: Iterable[InstanceHeader], root: Path
) -> tuple[dict[str, list[InstanceHeader]], list[Rejection]]:
    segs: dict[str, list[InstanceHeader]] = defaultdict(list)
    rejections: list[Rejection] = []
    found = [header for header in headers if header.sop_class_uid == sop_classes.SEGMENTATION]
    for header in sorted(found, key=lambda header: _age(header, root)):
        reference = read_seg_reference(root / header.path)
        if not reference.liver:
            rejections.append(
                Rejection(
                    Reason.NOT_CT,
                    f"segmentation {header.sop_instance_uid} has no segment that is coded as liver",
                    header.sop_instance_uid,
                )
            )
            continue
        if not reference.series:
            rejections.append(_no_series(header))
        for uid in reference.series:
            segs[uid].append(header)
    return segs, rejections


def _unreferenced(segs: dict[str, list[InstanceHeader]], answered: set[str]) -> list[Rejection]:
    used = {header.sop_instance_uid for uid in answered for header in segs.get(uid, ())}
    unused = {header.sop_instance_uid: header for found in segs.values() for header in found}
    return [_no_series(header) for uid, header in sorted(unused.items()) if uid not in used]


def _no_series(header: InstanceHeader) -> Rejection:
    return Rejection(
        Reason.NOT_CT,
        f"segmentation {header.sop_instance_uid} references no series that is analysed here",
        header.sop_instance_uid,
    )
