"""m3node: a DICOM-native node that finds liver lesions in CT and answers with DICOM objects.

The flow is ``intake -> imaging -> liver -> detectors, m3 -> results -> delivery``; ``jobs`` strings it together.
Not for clinical use.
"""

__version__ = "0.1.0"
