"""Where a model looked, as results show it: chosen maps, the capture, the Parametric Map, and what reports say of them.

``choice`` takes a map for each lesion from what the detector kept, ``picture`` draws it, ``capture`` and
``parametric_map`` make the DICOM objects, ``references`` ties them to their sources and to the reports. ``sheet`` is
the picture for a volume without DICOM.
"""
