"""What is accepted can be decoded, and what cannot be decoded is not accepted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian

from m3node.imaging import decode
from m3node.imaging.assemble import assemble
from m3node.intake.receive.contexts import (
    COMMITMENT,
    COMPRESSED,
    SOP_CLASSES,
    STORAGE,
    UNCOMPRESSED,
    presentation_contexts,
    support_rows,
)
from made_manifest import made_manifest

ACCEPTED = {syntax.uid for syntax in UNCOMPRESSED + COMPRESSED}
LOSSLESS = ACCEPTED - {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"}


def real_files(test_data: Path) -> dict[str, Path]:
    """The file of each transfer syntax that shows the same slice."""
    found = {}
    for path in sorted((test_data / "ct_transfer_syntaxes").glob("CTImage.dcm_*")):
        found[str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)] = path
    return found


def test_every_accepted_transfer_syntax_decodes_and_the_lossless_ones_are_identical(test_data: Path) -> None:
    files = real_files(test_data)
    assert files.keys() >= ACCEPTED
    hu = {uid: assemble(made_manifest([files[uid]])).hu for uid in ACCEPTED}
    reference = pydicom.dcmread(files[ExplicitVRLittleEndian]).pixel_array - 1024
    assert reference.std() > 10
    assert {values.shape for values in hu.values()} == {(1, *reference.shape)}
    assert {uid for uid, values in hu.items() if np.array_equal(values[0], reference)} == LOSSLESS


def test_what_is_said_to_decode_a_transfer_syntax_does_so_and_the_first_is_preferred() -> None:
    plugins = {"pydicom": "pydicom", "GDCM": "gdcm", "OpenJPEG": "pylibjpeg"}
    for syntax in COMPRESSED:
        named = [plugins[name] for name in syntax.decoder.split(", ")]
        available = get_decoder(syntax.uid).available_plugins
        preferred = "pylibjpeg" if syntax.uid in decode._OPENJPEG_ALONE else available[0]
        assert named[0] == preferred, syntax.name
        assert set(named) <= set(available), syntax.name


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"])
def test_twelve_bit_jpeg_is_not_accepted_and_indeed_does_not_decode(uid: str, test_data: Path) -> None:
    assert uid not in ACCEPTED
    ds = pydicom.dcmread(real_files(test_data)[uid])
    with pytest.raises((RuntimeError, NotImplementedError), match="Unable to decode"):
        _ = ds.pixel_array


def test_images_are_accepted_in_every_syntax_and_reports_uncompressed() -> None:
    contexts = {str(context.abstract_syntax): set(context.transfer_syntax) for context in presentation_contexts()}
    assert len(contexts) == len(SOP_CLASSES)
    for name in ("CT Image Storage", "Enhanced CT Image Storage", "Segmentation Storage"):
        assert contexts[next(sop.uid for sop in SOP_CLASSES if sop.name == name)] == ACCEPTED
    for sop in SOP_CLASSES:
        if "SR" in sop.name or "Presentation State" in sop.name:
            assert contexts[sop.uid] == {syntax.uid for syntax in UNCOMPRESSED}


def test_the_sop_classes_have_the_standards_names_and_the_transfer_syntaxes_are_the_standards() -> None:
    for sop in SOP_CLASSES:
        assert UID(sop.uid).name.removesuffix(" SOP Class") == sop.name
    assert set(AllTransferSyntaxes) >= ACCEPTED


def test_the_support_table_has_a_row_for_each() -> None:
    rows = support_rows()
    assert len(rows) == len(SOP_CLASSES) + len(ACCEPTED)
    assert {row[2] for row in rows} == {sop.uid for sop in SOP_CLASSES} | ACCEPTED
    assert all(all(cell for cell in row) for row in rows)


@pytest.mark.parametrize(("store", "report"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_caller_is_offered_what_it_may_do_and_no_more(store: bool, report: bool) -> None:
    contexts = {str(context.abstract_syntax): context for context in presentation_contexts(store=store, report=report)}
    expected = {"1.2.840.10008.1.1"} | ({sop.uid for sop in STORAGE} if store else set())
    assert contexts.keys() == expected | ({COMMITMENT.uid} if report else set())
    if report:
        # Who reports is the SCP, although it opens the association.
        assert (contexts[COMMITMENT.uid].scu_role, contexts[COMMITMENT.uid].scp_role) == (False, True)


def test_one_negotiation_does_not_change_the_next() -> None:
    first = presentation_contexts()
    first[0].transfer_syntax = []
    assert all(context.transfer_syntax for context in presentation_contexts())
