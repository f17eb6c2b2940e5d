"""Keeps a run's findings on disk before any object is built, and gives them back exactly (decision 6 of the design).

Two files in the run's folder::

    findings.json   words and numbers, for people and programs; its existence means that the findings are kept
    masks.npz       voxels: for each mask its packed bits, block shape, block start and grid shape

``findings.json`` names ``masks.npz`` by its SHA-256, and is written last. No patient name, identifier or birth date is
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
    digest = ""
    if masks:
        content = _pack(masks)
        digest = hashlib.sha256(content).hexdigest()
        # Without findings.json nobody has read a masks.npz that an interrupted run may have left.
        discard(folder / MASKS_FILE)
        place(folder / MASKS_FILE, content)
    document = findings_to_json(findings, masks_sha256=digest)
    return place(path, (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))


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
        False for words and numbers only, every mask being empty: ``masks.npz`` may be gone
        (``retention.results_days``).

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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{path} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise ResultError(f"{path} is damaged: not a JSON object")
    try:
        return findings_from_json(document, _load_masks(folder, document) if masks else _NoMasks())
    except (KeyError, ValueError, TypeError) as error:
        raise ResultError(f"{path} is damaged or incomplete: {error!r}") from error


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


def _load_masks(folder: Path, document: dict[str, Any]) -> dict[str, VoxelMask]:
    expected = document.get("masks_sha256", "")
    if not expected:
        return {}
    path = folder / MASKS_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ResultError(f"{path} is not the file that {FINDINGS_FILE} beside it names: its SHA-256 differs")
    masks: dict[str, VoxelMask] = {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            for key in arrays.files:
                name, _, part = key.rpartition(".")
                if part == "bits":
                    masks[name] = _unpack(arrays[key], arrays[f"{name}.grid"])
    except BadZipFile as error:
        raise ResultError(f"{path} is damaged: {error}") from error
    return masks


def _unpack(bits: npt.NDArray[np.uint8], grid: npt.NDArray[np.int64]) -> VoxelMask:
    shape, start, block = (tuple(int(v) for v in row) for row in grid)
    count = int(np.prod(block))
    data = np.unpackbits(bits, count=count).astype(np.bool_).reshape(block)
    return VoxelMask(shape=(shape[0], shape[1], shape[2]), start=(start[0], start[1], start[2]), data=data)
