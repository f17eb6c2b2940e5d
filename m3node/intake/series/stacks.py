"""Headers to stacks: a series may hold several, each judged and answered on its own (decision 7 of the design)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from m3node.intake.series import sop_classes
from m3node.intake.series.header import FrameHeader, InstanceHeader, Orientation, Vector3
from m3node.intake.series.manifest import SliceRef, StackKey

SAME_POSITION_MM = 0.01
"""Slices nearer than this lie at one position; scanners round positions to a tenth or a hundredth of a millimetre."""

SAME_ORIENTATION_DEGREES = 1.0
"""Orientations nearer than this belong to one stack; a tilt within it is for the judge."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one series that belong together.

    Attributes
    ----------
    key : StackKey
        Names it.
    instances : tuple of InstanceHeader
        Each once, in slice order of their first frame in this stack.
    slices : tuple of SliceRef
        In order along the stack's normal (row × column direction), lowest first; slices without a position last.
    """

    key: StackKey
    instances: tuple[InstanceHeader, ...]
    slices: tuple[SliceRef, ...]

    def frame(self, index: int) -> FrameHeader:
        """Header of the slice ``index``."""
        ref = self.slices[index]
        return self.instances[ref.instance].frames[ref.frame]

    @property
    def frames(self) -> tuple[FrameHeader, ...]:
        """Headers of all slices, in order."""
        return tuple(self.frame(index) for index in range(len(self.slices)))


@dataclass(frozen=True, slots=True)
class _Slice:
    header: InstanceHeader
    index: int

    @property
    def frame(self) -> FrameHeader:
        return self.header.frames[self.index]

    @property
    def identity(self) -> tuple[str, str, int]:
        return self.header.sop_instance_uid, self.header.sha256, self.index


_Group = list[_Slice]


def group_stacks(headers: Iterable[InstanceHeader]) -> tuple[Stack, ...]:
    """Sort the frames of CT instances into stacks.

    A series is split by

    1. localizer or not (Image Type), convolution kernel, orientation (within `SAME_ORIENTATION_DEGREES`);
    2. temporal position, then acquisition number, but only where slices of different values interleave or share a
       position, as the phases of a multi-phase series do. A scanner that counts an acquisition for every table
       position (step and shoot) gives every slice or pair of slices a number of its own, in disjoint ranges along the
       body: these stay one stack.

    The order of ``headers`` has no influence. An instance that is there twice, byte for byte, counts once; instances of
    other SOP classes are passed over. Revisions of one instance are the caller's to decide beforehand.

    Returns
    -------
    tuple of Stack
        By key. ``StackKey.stack`` is empty where the series holds one stack, else a digest of what sets it apart.
    """
    once = {(h.sop_instance_uid, h.sha256): h for h in sorted(headers, key=lambda h: h.path, reverse=True)}
    series: dict[str, _Group] = defaultdict(list)
    for header in once.values():
        if header.sop_class_uid in sop_classes.CT:
            series[header.series_instance_uid].extend(_Slice(header, i) for i in range(len(header.frames)))
    stacks: list[Stack] = []
    for uid, slices in series.items():
        slices.sort(key=lambda s: s.identity)
        groups = _split(slices)
        for traits, group in groups.items():
            digest = hashlib.sha256(repr(traits).encode()).hexdigest()[:8] if len(groups) > 1 else ""
            stacks.append(_stack(StackKey(uid, digest), group))
    return tuple(sorted(stacks, key=lambda stack: stack.key))


def stack_normal(orientation: Orientation) -> Vector3:
    """Unit normal of a slice, row × column direction, LPS."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length == 0.0:
        return 0.0, 0.0, 0.0
    x, y, z = (float(v) for v in normal / length)
    return x, y, z


def is_localizer(frame: FrameHeader) -> bool:
    """Whether Image Type or Frame Type says so (PS3.3 C.8.2.1.1.1)."""
    return any(value.upper() in {"LOCALIZER", "SCOUT", "SCANOGRAM", "TOPOGRAM"} for value in frame.image_type)


def _split(slices: _Group) -> dict[tuple[object, ...], _Group]:
    representatives: list[Orientation] = []
    coarse: dict[tuple[bool, str, tuple[float, ...], Orientation | None], _Group] = defaultdict(list)
    for s in slices:
        orientation = _representative(s.frame.orientation, representatives)
        rounded = tuple(round(value, 1) + 0.0 for value in orientation) if orientation else ()
        coarse[is_localizer(s.frame), s.frame.kernel, rounded, orientation].append(s)
    result: dict[tuple[object, ...], _Group] = {}
    for (localizer, kernel, rounded, orientation), group in coarse.items():
        for temporal, phase in _separate(group, lambda s: s.frame.temporal_position).items():
            for acquisition, part in _separate(phase, lambda s: s.frame.acquisition_number).items():
                traits: tuple[object, ...] = (localizer, kernel, rounded, temporal, acquisition)
                if traits in result:  # two orientations that round alike
                    traits = (*traits, orientation)
                result[traits] = part
    return result


def _representative(orientation: Orientation | None, known: list[Orientation]) -> Orientation | None:
    """Return the known orientation that this one equals within the tolerance, or this one, which is then known."""
    if orientation is None:
        return None
    limit = np.cos(np.radians(SAME_ORIENTATION_DEGREES))
    mine = np.asarray(orientation)
    for other in known:
        theirs = np.asarray(other)
        if mine[:3] @ theirs[:3] >= limit and mine[3:] @ theirs[3:] >= limit:
            return other
    known.append(orientation)
    return orientation


def _separate(group: _Group, value_of: Callable[[_Slice], int | None]) -> dict[int | None, _Group]:
    """Part the slices by a value where that parts slices that share a stretch of the body; else leave them together.

    Values are taken in order; one that lies clear of those before it joins them. A part is named by its first value,
    and an unparted group by None.
    """
    by_value: dict[int, _Group] = defaultdict(list)
    for s in group:
        value = value_of(s)
        if value is None or s.frame.position is None or s.frame.orientation is None:
            return {None: group}
        by_value[value].append(s)
    parts: dict[int | None, _Group] = {}
    spans: dict[int | None, list[tuple[float, float]]] = {}
    current: int | None = None
    normal = stack_normal(group[0].frame.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    for value in sorted(by_value):
        along = [_along(s, normal) for s in by_value[value]]
        span = (min(along), max(along))
        if current is None or any(_overlap(span, other) for other in spans[current]):
            current = value
            parts[current], spans[current] = [], []
        parts[current].extend(by_value[value])
        spans[current].append(span)
    return {None: group} if len(parts) == 1 else parts


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[1] + SAME_POSITION_MM and b[0] <= a[1] + SAME_POSITION_MM


def _along(s: _Slice, normal: Vector3) -> float:
    return float(np.dot(s.frame.position or (0.0, 0.0, 0.0), normal))


def _stack(key: StackKey, group: _Group) -> Stack:
    oriented = next((s.frame.orientation for s in group if s.frame.orientation is not None), None)
    normal = stack_normal(oriented) if oriented else (0.0, 0.0, 1.0)

    def order(s: _Slice) -> tuple[bool, float, int, tuple[str, str, int]]:
        # Positions are compared as the file has them, so that no rounding can put two runs in different orders.
        return s.frame.position is None, _along(s, normal), s.header.instance_number or 0, s.identity

    ordered = sorted(group, key=order)
    numbers: dict[tuple[str, str], int] = {}
    instances: list[InstanceHeader] = []
    slices: list[SliceRef] = []
    for s in ordered:
        name = (s.header.sop_instance_uid, s.header.sha256)
        if name not in numbers:
            numbers[name] = len(instances)
            instances.append(s.header)
        slices.append(SliceRef(numbers[name], s.index))
    return Stack(key, tuple(instances), tuple(slices))
