"""A case read: its volume, its liver and its lesions, all on one grid."""

from __future__ import annotations

from dataclasses import dataclass

from m3node.errors import InputRejected
from m3node.evaluation.cases.label_maps import labels_in, lesions_of_map, parts_of
from m3node.evaluation.cases.layout import CaseFolder
from m3node.evaluation.cases.seg_truth import read_seg_lesions, read_seg_liver, seg_files
from m3node.imaging.assemble import assemble
from m3node.imaging.mask import VoxelMask
from m3node.imaging.nifti import read_nifti, read_nifti_mask
from m3node.imaging.volume import CTVolume
from m3node.intake.folder.inputs import survey
from m3node.rejection import Reason
from m3node.settings import Settings

LIVER_LABEL = 1
LESION_LABEL = 2


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A case with what is known of it.

    Attributes
    ----------
    folder : CaseFolder
        Its name, patient and kind.
    volume : CTVolume
        The CT.
    liver : VoxelMask or None
        True liver, where it is known.
    lesions : tuple of VoxelMask or None
        True lesions; empty for a healthy case, None where nobody says which there are.
    """

    folder: CaseFolder
    volume: CTVolume
    liver: VoxelMask | None
    lesions: tuple[VoxelMask, ...] | None


def read_case(folder: CaseFolder, settings: Settings) -> Case:
    """Read a case.

    Raises
    ------
    InputRejected
        Its CT or its truth cannot be used; the message names the file and what to do.
    """
    volume = read_nifti(folder.volume) if folder.volume is not None else _dicom_volume(folder, settings)
    liver, lesions = _truth(folder, volume)
    if folder.healthy:
        if lesions:
            raise InputRejected(
                Reason.MIXED_GEOMETRY,
                f"case.toml says healthy, and its masks show {len(lesions)} lesions; correct one of them",
            )
        lesions = ()
    return Case(folder=folder, volume=volume, liver=liver, lesions=lesions)


def _truth(folder: CaseFolder, volume: CTVolume) -> tuple[VoxelMask | None, tuple[VoxelMask, ...] | None]:
    if folder.labels is not None:
        values = labels_in(folder.labels)
        if unknown := sorted(values - {0, LIVER_LABEL, LESION_LABEL}):
            raise InputRejected(
                Reason.UNSUPPORTED_PIXELS,
                f"{folder.labels.name} holds {unknown}; 1 is the liver and 2 its lesions, nothing else is known",
            )
        # In the label maps that are published so, what is lesion is not labelled as liver too.
        liver = read_nifti_mask(folder.labels, volume) if values - {0} else None
        lesion = read_nifti_mask(folder.labels, volume, LESION_LABEL) if LESION_LABEL in values else None
        return liver, parts_of(lesion) if lesion is not None else ()
    liver = read_nifti_mask(folder.liver, volume) if folder.liver is not None else None
    lesions = lesions_of_map(folder.lesions, volume) if folder.lesions is not None else None
    if folder.volume is None:
        for path in seg_files(folder.folder):
            if liver is None:
                liver = read_seg_liver(path, volume)
            if folder.lesions is None:
                found = read_seg_lesions(path, volume)
                lesions = lesions if found is None else (*(lesions or ()), *found)
    return liver, lesions


def _dicom_volume(folder: CaseFolder, settings: Settings) -> CTVolume:
    found = survey(folder.folder, settings)
    if not found.manifests:
        reasons = [rejection for key, rejection in found.rejections if key is not None]
        raise InputRejected(
            reasons[0].reason if reasons else Reason.NOT_DICOM,
            f"it has no CT stack that can be used{f': {reasons[0].message}' if reasons else ''}",
        )
    if len(found.manifests) > 1:
        raise InputRejected(
            Reason.NOT_SELECTED,
            f"it has {len(found.manifests)} CT stacks; make one case of each, so that the truth belongs to one",
        )
    return assemble(found.manifests[0])
