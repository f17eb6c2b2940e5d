"""Keeps a run's findings on disk before any object is built, and gives them back exactly (decision 6 of the design).

Up to three files in the run's folder::

    findings.json   words and numbers, for people and programs; its existence means that the findings are kept
    masks.npz       voxels: for each mask its packed bits, block shape, block start and grid shape
    attention.npz   where the model looked, when that was asked for: the cells of each entry of ``attention``, float32

``findings.json`` names the others by their SHA-256, and is written last. No patient name, identifier or birth date is
in either; UIDs are. Numbers survive the round trip bit by bit.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from m3node.errors import ResultError
from m3node.imaging.mask import VoxelMask
from m3node.results.findings import Findings
from m3node.results.findings_json import MaskNames, findings_from_json, findings_to_json
from m3node.results.placing import discard, place

logger = logging.getLogger(__name__)

FINDINGS_FILE = "findings.json"
MASKS_FILE = "masks.npz"
ATTENTION_FILE = "attention.npz"


def save_findings(findings: Findings, folder: Path) -> bool:
    """Keep findings; once kept they stay as they are.

    Parameters
    ----------
    findings : Findings
        What was found, or why nothing was looked at.
    folder : Path
        The run's folder; made when absent.

    Returns
    -------
    bool
        True when these findings were kept, False when the folder held findings before: a step may run twice, and the
        first answer counts. ``load_findings`` gives what is kept.

    Raises
    ------
    ResultError
        The disk refuses.
    """
    path = folder / FINDINGS_FILE
    if path.exists():
        logger.info("findings of %s are kept already", findings.manifest_key[:12])
        return False
    masks = _masks(findings)
    masks_sha256 = _keep(folder / MASKS_FILE, _pack(masks) if masks else b"")
    attention_sha256 = _keep(folder / ATTENTION_FILE, _pack_attention(findings) if findings.attention else b"")
    document = findings_to_json(findings, masks_sha256=masks_sha256, attention_sha256=attention_sha256)
    return place(path, (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))


def _keep(path: Path, content: bytes) -> str:
    """Write what ``findings.json`` will name, and return its SHA-256; nothing, and "", for no bytes."""
    # Without findings.json nobody has read a file that an interrupted run may have left.
    discard(path)
    if not content:
        return ""
    place(path, content)
    return hashlib.sha256(content).hexdigest()


class _NoMasks(dict[str, VoxelMask]):
    """An empty mask for every name."""

    def __missing__(self, name: str) -> VoxelMask:
        return VoxelMask.empty((0, 0, 0))


def load_findings(folder: Path, *, masks: bool = True) -> Findings:
    """Read back what ``save_findings`` kept.

    Parameters
    ----------
    folder : Path
        The run's folder.
    masks : bool
        False for words and numbers only, every mask being empty and without attention: the files beside
        ``findings.json`` may be gone (``retention.results_days``).

    Raises
    ------
    ResultError
        There is nothing, it is damaged, or another version of m3node wrote a schema this one does not know.
    """
    path = folder / FINDINGS_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError, numbers of thousands of digits
        raise ResultError(f"{path} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise ResultError(f"{path} is damaged: not a JSON object")
    try:
        if not masks:
            return findings_from_json(document, _NoMasks())
        return findings_from_json(document, _load_masks(folder, document), _load_attention(folder, document))
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise ResultError(f"{path} is damaged or incomplete: {error!r}") from error


def missing_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that ``findings.json`` names and that are gone, as retention removes them; none without it.

    Of a damaged ``findings.json`` nothing is known, and none is named.
    """
    try:
        document = json.loads((folder / FINDINGS_FILE).read_text(encoding="utf-8"))
        named = {MASKS_FILE: document.get("masks_sha256"), ATTENTION_FILE: document.get("attention_sha256")}
    except (OSError, ValueError, AttributeError):
        return ()
    return tuple(name for name, digest in named.items() if digest and not (folder / name).exists())


def _masks(findings: Findings) -> dict[str, VoxelMask]:
    masks: dict[str, VoxelMask] = {}
    if findings.region is not None:
        masks[MaskNames.PARENCHYMA] = findings.region.parenchyma
        masks[MaskNames.ENVELOPE] = findings.region.envelope
    for lesion in findings.lesions:
        masks[MaskNames.lesion(lesion.number)] = lesion.mask
    return masks


def _pack(masks: dict[str, VoxelMask]) -> bytes:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, mask in masks.items():
        block = mask.cropped()
        arrays[f"{name}.bits"] = np.packbits(block.data)
        arrays[f"{name}.grid"] = np.array([block.shape, block.start, block.data.shape], dtype=np.int64)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _pack_attention(findings: Findings) -> bytes:
    stream = io.BytesIO()
    grids = {str(index): item.grid.values.astype(np.float32) for index, item in enumerate(findings.attention)}
    np.savez_compressed(stream, **grids)  # type: ignore[arg-type]
    return stream.getvalue()


def _load_masks(folder: Path, document: dict[str, Any]) -> dict[str, VoxelMask]:
    arrays = _load_arrays(folder / MASKS_FILE, document.get("masks_sha256", ""))
    names = [key.removesuffix(".bits") for key in arrays if key.endswith(".bits")]
    return {name: _unpack(arrays[f"{name}.bits"], arrays[f"{name}.grid"]) for name in names}


def _load_attention(folder: Path, document: dict[str, Any]) -> list[npt.NDArray[np.float32]]:
    arrays = _load_arrays(folder / ATTENTION_FILE, document.get("attention_sha256", ""))
    return [arrays[str(index)] for index in range(len(arrays))]


def _load_arrays(path: Path, expected: str) -> dict[str, npt.NDArray[Any]]:
    """Read an NPZ file of a SHA-256 that ``findings.json`` names; nothing where it names none."""
    if not expected:
        return {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ResultError(f"{path} is not the file that {FINDINGS_FILE} beside it names: its SHA-256 differs")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except BadZipFile as error:
        raise ResultError(f"{path} is damaged: {error}") from error


def _unpack(bits: npt.NDArray[np.uint8], grid: npt.NDArray[np.int64]) -> VoxelMask:
    shape, start, block = (tuple(int(v) for v in row) for row in grid)
    count = int(np.prod(block))
    data = np.unpackbits(bits, count=count).astype(np.bool_).reshape(block)
    return VoxelMask(shape=(shape[0], shape[1], shape[2]), start=(start[0], start[1], start[2]), data=data)
