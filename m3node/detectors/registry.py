"""Finds a detector by the name in the settings, among all that installed packages offer.

A package offers one as an entry point of the group ``m3node.detectors``: a class with the class method
``from_settings(settings: DetectorSettings)`` whose result is a `Detector` or a `CropDetector`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, metadata

from m3node.detectors.protocols import CropDetector, Detector
from m3node.errors import ConfigError
from m3node.settings import DetectorSettings

GROUP = "m3node.detectors"


def detector_names() -> tuple[str, ...]:
    """Return the names that `load_detector` knows, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load_detector(settings: DetectorSettings) -> Detector | CropDetector:
    """Load the detector that the settings name.

    Raises
    ------
    ConfigError
        No installed package offers the name, two do, its module needs a package that is not installed, or what it
        offers is no detector.
    """
    point = _entry_point(settings.name)
    try:
        offered = point.load()
    except ModuleNotFoundError as error:
        raise ConfigError(_what_to_install(point, error)) from error
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the detector {point.name!r} ({point.value}) cannot be imported: {error}") from error
    build = getattr(offered, "from_settings", None)
    if build is None:
        raise ConfigError(f"{point.value}, offered as detector {point.name!r}, has no from_settings")
    try:
        detector = build(settings)
    except ModuleNotFoundError as error:
        raise ConfigError(_what_to_install(point, error)) from error
    if isinstance(detector, Detector | CropDetector):
        return detector
    raise ConfigError(f"{point.value}, offered as detector {point.name!r}, has neither find nor look")


def _entry_point(name: str) -> EntryPoint:
    # An editable install beside a wheel lists the same entry point twice.
    points = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if not points:
        available = ", ".join(detector_names()) or "none"
        raise ConfigError(f"there is no detector {name!r}; available: {available}")
    if len(points) > 1:
        raise ConfigError(f"several packages offer a detector {name!r}: {', '.join(sorted(points))}; uninstall one")
    return next(iter(points.values()))


def _what_to_install(point: EntryPoint, error: ModuleNotFoundError) -> str:
    missing = f"the detector {point.name!r} needs the module {error.name!r}, which is not installed"
    if point.name in _own_extras():
        return f"{missing}; install it with: pip install 'm3node[{point.name}]'"
    return f"{missing}; install what {point.module.partition('.')[0]!r} requires"


def _own_extras() -> tuple[str, ...]:
    try:
        return tuple(metadata("m3node").get_all("Provides-Extra") or ())
    except PackageNotFoundError:
        return ()
