"""A label says what a box is of: a lesion unless it says otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.detectors.medgemma.labels import Named, what_is_named

LESIONS = [
    "liver lesion",
    "",
    "mass",
    "cyst",
    "renal cyst",
    "metastasis in segment VII",
    "lesion of the right lobe",
    "hypodense area",
    "abnormal area",
    "non-enhancing lesion",
    "nonspecific lesion",
    "homogeneous mass",
    "clear cell carcinoma",
    "focal fatty sparing",
    "hypodense lesion with no enhancement",
    "lesion not well defined",
    "hypodense, no enhancement of the lesion",
    "lesion in an otherwise normal liver",
    "lesion no. 2",
    "Lesion No 3",
    "No. 1",
    "lesion 1",
    "1",
    "right",
    "area",
    "肝",
    "free fluid",
]
DENIALS = [
    "no lesion",
    "No Lesion.",
    "no_lesion",
    "no-lesion",
    "no focal liver lesion",
    "no abnormality",
    "no evidence of metastasis",
    "no",
    "none",
    "None",
    "n/a",
    "N/A",
    "null",
    "nothing",
    "absent",
    "negative",
    "lesion: none",
    "lesion (absent)",
    "lesion not seen",
    "not a lesion",
    "non-lesion",
    "lesion-free",
    "liver free of lesions",
    "liver: no lesion",
    "the liver is without lesion",
    "area without lesion",
    "liver: nothing there",
    "right side: nothing there",
    "parenchyma and no focal lesion",
    "smooth contour, no focal hepatic mass",
    "normal",
    "Normal appearance",
    "unremarkable",
    "absence of lesions",
]
STRUCTURES = [
    "liver",
    "the liver",
    "Right Kidney",
    "gallbladder",
    "portal vein",
    "inferior vena cava",
    "left hepatic lobe",
    "liver segment VII",
    "segment 4a",
    "spleen and stomach",
    "normal liver",
    "healthy liver tissue",
    "liver (unremarkable)",
    "padding",
]


@pytest.mark.parametrize(
    ("label", "named"),
    [
        *((label, Named.LESION) for label in LESIONS),
        *((label, Named.NOTHING) for label in DENIALS),
        *((label, Named.STRUCTURE) for label in STRUCTURES),
    ],
)
def test_a_label_is_read(label: str, named: Named) -> None:
    assert what_is_named(label) is named
    assert what_is_named(f"  {label.upper()} ") is named


finding = st.sampled_from(["lesion", "lesions", "mass", "tumour", "nodules", "metastases", "abnormality", "disease"])
between = st.lists(st.sampled_from(["focal", "liver", "hypodense", "suspicious", "hepatic"]), max_size=2)


@given(
    before=st.sampled_from(["", "liver:", "the right lobe,", "smooth contour;"]),
    denial=st.sampled_from(["no", "without"]),
    between=between,
    finding=finding,
)
def test_a_denied_finding_is_never_a_lesion(before: str, denial: str, between: list[str], finding: str) -> None:
    assert what_is_named(" ".join([before, denial, *between, finding])) is Named.NOTHING


@given(
    adjectives=between, finding=finding, place=st.sampled_from(["", "in segment II", "of the liver", "next to bowel"])
)
def test_a_finding_that_is_not_denied_is_a_lesion_wherever_it_lies(
    adjectives: list[str], finding: str, place: str
) -> None:
    assert what_is_named(" ".join([*adjectives, finding, place])) is Named.LESION


@given(st.text())
def test_no_label_raises(label: str) -> None:
    assert isinstance(what_is_named(label), Named)
