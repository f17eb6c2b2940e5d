"""What the frames of our multi-frame objects say of themselves: which slice they lie on, and what they are made of."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from m3node.results import terms
from m3node.results.source import SourceSlice, decimals

_PURPOSE = CodedConcept.from_code(codes.cid7202.SourceImageForImageProcessingOperation)


def source_image(source: SourceSlice) -> Dataset:
    """Name a slice as the source of what was made of it (Source Image Sequence, PS3.3 10.3)."""
    image = Dataset()
    image.ReferencedSOPClassUID = source.sop_class_uid
    image.ReferencedSOPInstanceUID = source.sop_instance_uid
    if source.frame_number is not None:
        image.ReferencedFrameNumber = source.frame_number
    image.PurposeOfReferenceCodeSequence = [_PURPOSE]
    return image


def frame_group(source: SourceSlice, derivation: CodedConcept, index: list[int]) -> Dataset:
    """Make the functional groups of a frame that has a slice's own pixel grid.

    Parameters
    ----------
    source : SourceSlice
        The slice.
    derivation : CodedConcept
        How the frame came from it.
    index : list of int
        Dimension Index Values, from 1.
    """
    image = source_image(source)
    image.SpatialLocationsPreserved = "YES"
    derived = Dataset()
    derived.DerivationCodeSequence = [derivation]
    derived.SourceImageSequence = [image]
    content = Dataset()
    content.DimensionIndexValues = index
    position = Dataset()
    position.ImagePositionPatient = decimals(source.position)
    group = Dataset()
    group.DerivationImageSequence = [derived]
    group.FrameContentSequence = [content]
    group.PlanePositionSequence = [position]
    return group


def liver_anatomy() -> Dataset:
    """The liver, for Frame Anatomy Sequence."""
    anatomy = Dataset()
    anatomy.FrameLaterality = "U"
    anatomy.AnatomicRegionSequence = [terms.LIVER]
    return anatomy
