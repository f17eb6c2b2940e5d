"""The lesions that the node finds by itself: its own liver region, its own detector, the method's default settings."""

from __future__ import annotations

from m3node.detectors.contrast import ContrastDetector
from m3node.imaging.volume import CTVolume
from m3node.liver.find import find_liver
from m3node.m3.lesion import Lesion
from m3node.m3.lesions import characterise
from m3node.m3.method import M3Method
from m3node.settings import ContrastSettings, LiverSettings, M3Settings


def find_lesions(volume: CTVolume) -> tuple[Lesion, ...]:
    """Best first; there must be a liver."""
    region = find_liver(volume, LiverSettings())
    assert region is not None
    method = M3Method(ContrastDetector(ContrastSettings()), M3Settings())
    return characterise(volume, region, method.find(volume, region, lambda *_: None), M3Settings())
