"""UIDs follow from what the answer depends on, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.liver.region import LiverSource
from m3node.m3.lesion import Lesion
from m3node.results.findings import Findings, KeyAttention, Outcome, PredecessorReport
from m3node.results.objects import ObjectKind
from m3node.results.uids import derived_uid, instance_uid, mask_digest, run_digest, series_uid
from made_findings import ellipsoid, made_findings, with_attention

GEOMETRY = axial_geometry((10, 30, 40), (2.5, 0.8, 0.7))


def remeasured(lesion: Lesion) -> Lesion:
    return replace(lesion, measurements=replace(lesion.measurements, hu_mean=lesion.measurements.hu_mean + 0.5))


def heated(item: KeyAttention) -> KeyAttention:
    values = item.grid.values.copy()
    values[0, 0] += 1e-6
    return replace(item, grid=replace(item.grid, values=values))


CHANGES: dict[str, Callable[[Findings], Findings]] = {
    "manifest": lambda f: replace(f, manifest_key="c" * 64),
    "settings": lambda f: replace(f, settings_digest="c" * 64),
    "code version": lambda f: replace(f, software_version="99.0"),
    "outcome": lambda f: replace(f, outcome=Outcome.INCOMPLETE),
    "views read": lambda f: replace(f, views_read=f.views_read - 1),
    "detector": lambda f: replace(f, detector=replace(f.detector, name="other")),
    "detector version": lambda f: replace(f, detector=replace(f.detector, version="2")),
    "model weights": lambda f: replace(f, detector=replace(f.detector, weights="sha256:ff")),
    "detector parameters": lambda f: replace(f, detector=replace(f.detector, parameters=(("alpha", "2"),))),
    "liver source": lambda f: replace(f, region=replace(f.region, source=LiverSource.RECEIVED_SEG)),  # type: ignore[type-var]
    "liver reference": lambda f: replace(f, region=replace(f.region, reference="1.2.3")),  # type: ignore[type-var]
    "liver algorithm": lambda f: replace(f, region=replace(f.region, algorithm="other 2")),  # type: ignore[type-var]
    "a voxel of the liver": lambda f: replace(f, region=replace(f.region, parenchyma=f.lesions[0].mask)),  # type: ignore[type-var]
    "tracking": lambda f: replace(f, tracking_uids=f.tracking_uids[::-1]),
    "a measurement": lambda f: replace(f, lesions=(remeasured(f.lesions[0]), *f.lesions[1:])),
    "findings": lambda f: replace(f, lesions=f.lesions[:1], tracking_uids=f.tracking_uids[:1]),
    "a voxel": lambda f: replace(
        f, lesions=(replace(f.lesions[0], mask=ellipsoid(GEOMETRY.shape, (5, 5, 5), (1, 1, 1))), *f.lesions[1:])
    ),
    "predecessors": lambda f: replace(f, predecessors=(PredecessorReport("1", "2", "3", "4"),)),
    "attention": lambda f: replace(f, attention=()),
    "a cell of attention": lambda f: replace(f, attention=(heated(f.attention[0]), *f.attention[1:])),
    "whose attention": lambda f: replace(f, attention=(replace(f.attention[0], lesion=None), *f.attention[1:])),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_answer_has_another_uid(what: str) -> None:
    findings = with_attention(made_findings(GEOMETRY))
    assert run_digest(CHANGES[what](findings)) != run_digest(findings)


def test_the_same_answer_at_another_time_has_the_same_uids() -> None:
    later = replace(made_findings(GEOMETRY), content_time="2030-01-01T00:00:00+00:00")
    assert run_digest(later) == run_digest(made_findings(GEOMETRY))
    assert later.tracking_uids == made_findings(GEOMETRY).tracking_uids


def test_every_object_has_its_own_instance_and_series() -> None:
    digest = run_digest(made_findings(GEOMETRY))
    uids = [instance_uid(digest, kind) for kind in ObjectKind] + [series_uid(digest, kind) for kind in ObjectKind]
    assert len(set(uids)) == 2 * len(ObjectKind)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_derived_uid_is_valid_and_tells_its_parts_apart(one: list[str], other: list[str]) -> None:
    uid = derived_uid(*one)
    assert UID(uid).is_valid
    assert uid.startswith("2.25.")
    assert (derived_uid(*other) == uid) == (one == other)


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5))
def test_a_mask_has_one_digest_however_its_block_is_cut(k: int, r: int, c: int) -> None:
    full = np.zeros((6, 8, 10), dtype=np.bool_)
    full[3:5, 4:6, 5:8] = True
    block = VoxelMask(shape=full.shape, start=(k, r, c), data=full[k:, r:, c:])  # type: ignore[arg-type]
    assert mask_digest(block) == mask_digest(VoxelMask.from_full(full))
