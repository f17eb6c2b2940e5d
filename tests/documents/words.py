"""The words for values of created objects that no comparison can give: what the node computes, and what it follows."""

from __future__ import annotations

COMPUTED = {
    "CompletionFlag": "COMPLETE; PARTIAL when too many of the model's views could not be read",
    "CompletionFlagDescription": "with PARTIAL: how many views could be read",
    "ContentDate": "when the findings were made, in the source's time zone where it names one",
    "ContentTime": "as Content Date",
    "ContentSequence": "see the content tree below",
    "ContributingEquipmentSequence": "the detector: name, version, weights, notice; and highdicom, but in the capture",
    "CurrentRequestedProcedureEvidenceSequence": "every source instance, and whatever else the content refers to",
    "DateOfSecondaryCapture": "as Content Date elsewhere",
    "DimensionIndexSequence": "how frames are ordered",
    "DimensionOrganizationSequence": "`2.25.` + UUIDv5 over the run",
    "DisplayedAreaSelectionSequence": "the whole of each image, with its pixel spacing",
    "FloatPixelData": "one frame a shown slice, on its own grid",
    "FrameIncrementPointer": "Page Number Vector, with more than one frame",
    "GraphicAnnotationSequence": "boxes (POLYLINE, PIXEL) and labels of lesions, and the notice, on each key slice",
    "ImageComments": "the notices, and what each frame shows",
    "InstanceCreationDate": "as Content Date",
    "InstanceCreationTime": "as Content Date",
    "LossyImageCompression": "01 where the source says 01, else 00",
    "NumberOfFrames": "as many as there are",
    "PageNumberVector": "1 … number of frames, with more than one",
    "PerFrameFunctionalGroupsSequence": "per frame: position, derivation, index; segment or label",
    "PixelData": "native, uncompressed",
    "PredecessorDocumentsSequence": "the reports of the generation that this one follows",
    "PresentationCreationDate": "as Content Date elsewhere",
    "PresentationCreationTime": "as Content Date elsewhere",
    "ReferencedInstanceSequence": "the run's reports, with purpose (126000, DCM)",
    "ReferencedSeriesSequence": "the instances of the source that are meant; in capture and map, the run's reports too",
    "Rows": "of the drawn pictures",
    "Columns": "of the drawn pictures",
    "SOPInstanceUID": "`2.25.` + UUIDv5 over all that the result depends on",
    "SegmentsOverlap": "YES where lesions share voxels, else NO",
    "SegmentSequence": "1 the liver, *n* + 1 lesion *n*: codes, algorithm, colour, tracking identifiers",
    "SeriesDate": "as Content Date",
    "SeriesInstanceUID": "`2.25.` + UUIDv5 over all that the result depends on",
    "SeriesTime": "as Content Date",
    "SharedFunctionalGroupsSequence": "what all frames share: spacing, orientation, anatomy",
    "SourceImageSequence": "the slices that are shown",
    "TimeOfSecondaryCapture": "as Content Date elsewhere",
}
"""What the node makes of the findings; what is neither here nor explained by the comparison is a KeyError."""

SEQUENCES = {
    "CodingSchemeIdentificationSequence": "99M3NODE",
    "ConceptNameCodeSequence": "(126000, DCM, Imaging Measurement Report)",
    "ContentTemplateSequence": "TID 1500, DCMR",
    "GraphicLayerSequence": "LESIONS, NOTICE",
    "SoftcopyVOILUTSequence": "centre 60 HU, width 400 HU",
}
"""Sequences that are always the same, in words."""


FOLLOWED = {
    "LossyImageCompressionMethod": "that of the source, where that is lossy",
    "LossyImageCompressionRatio": "that of the source, where that is lossy",
    "RescaleIntercept": "that of the first key slice",
    "RescaleSlope": "that of the first key slice",
}
"""What follows the source, and not in every run."""

CONFIGURED = {
    "SeriesNumber": "`results.series_number_base` and the kind's own step",
    "StationName": "`results.station_name`; absent without it",
}
