"""A detector is found by name, wherever its package comes from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3node.detectors.protocols import Detector
from m3node.detectors.registry import detector_names, load_detector
from m3node.errors import ConfigError
from m3node.settings import DetectorSettings

MODULE = """
from m3node.detectors.protocols import Detection, DetectorIdentity

class Elsewhere:
    identity = DetectorIdentity(name="elsewhere", version="1", description="A detector of another package.")

    @classmethod
    def from_settings(cls, settings):
        return cls()

    def find(self, volume, region, progress):
        return Detection(candidates=(), views_total=0, views_read=0)

class NotOne:
    @classmethod
    def from_settings(cls, settings):
        return object()

class Bare:
    pass

class Hungry:
    @classmethod
    def from_settings(cls, settings):
        import surely_absent_module
"""


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another distribution, installed as pip would leave it."""
    (tmp_path / "other_detectors.py").write_text(MODULE)
    info = tmp_path / "other_detectors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-detectors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[m3node.detectors]\n"
        "elsewhere = other_detectors:Elsewhere\n"
        "broken = other_detectors_missing:Thing\n"
        "absent = other_detectors:Thing\n"
        "not-one = other_detectors:NotOne\n"
        "bare = other_detectors:Bare\n"
        "contrast = other_detectors:Elsewhere\n"
        "hungry = other_detectors:Hungry\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("other_detectors", None)


@pytest.mark.usefixtures("other_package")
def test_a_detector_of_another_package_is_loaded_by_its_name() -> None:
    assert "elsewhere" in detector_names()
    detector = load_detector(DetectorSettings(name="elsewhere"))
    assert isinstance(detector, Detector)
    assert detector.identity.name == "elsewhere"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no detector 'kontrast'; available: .*contrast"):
        load_detector(DetectorSettings(name="kontrast"))


@pytest.mark.usefixtures("other_package")
def test_a_missing_module_is_named() -> None:
    with pytest.raises(ConfigError, match=r"needs the module 'other_detectors_missing'.*install what"):
        load_detector(DetectorSettings(name="broken"))


@pytest.mark.usefixtures("other_package")
def test_for_an_extra_of_ours_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.detectors.registry._own_extras", lambda: ("hungry",))
    with pytest.raises(ConfigError, match=r"surely_absent_module.*pip install 'm3node\[hungry\]'"):
        load_detector(DetectorSettings(name="hungry"))


@pytest.mark.usefixtures("other_package")
@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "cannot be imported"), ("not-one", "neither find nor look"), ("bare", "has no from_settings")],
)
def test_what_is_no_detector_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_detector(DetectorSettings(name=name))


@pytest.mark.usefixtures("other_package")
def test_a_name_that_two_packages_offer_is_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=r"m3node\.detectors\.contrast:\S+, other_detectors:Elsewhere; uninstall one"):
        load_detector(DetectorSettings(name="contrast"))
