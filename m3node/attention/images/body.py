"""Where the body lies in an image."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage as ndi
from skimage.filters import threshold_otsu
from skimage.morphology import isotropic_closing, isotropic_opening

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.images.liver import LiverOutlines
from m3node.liver.morphology import largest_component, open_

Bools = npt.NDArray[np.bool_]

WORKED_SIDE = 512
"""A radiograph is made smaller than this to look for the body, which has no finer edge than that."""

RADIUS_SHARE = 0.01
"""Radius of closing and opening, of the longer side: ribs and gaps between fingers, not arms and necks."""

MIN_SHARE = 0.05
"""Of the image; what is smaller is a sign or a speck, not a body."""

CT_TISSUE_HU = -300.0
"""Fat lies above, air, clothes and most mattresses below."""

CT_TABLE_MM = 4.0
"""Radius of the ball that removes what is thinner than twice this: the table, tubes, blankets."""

_SATURATED = 250
_UNEXPOSED_SHARE = 0.97
"""A border line is unexposed film, labels aside, when so many of its pixels are white; no body is, all across."""


class BodyKind(StrEnum):
    """How the body is looked for."""

    AUTO = "auto"
    XRAY = "xray"
    CT = "ct"
    LIVER = "liver"
    NONE = "none"


def find_body(image: InputImage, kind: BodyKind, *, livers: LiverOutlines | None = None) -> Bools | None:
    """Find the body in an image, or the liver.

    Parameters
    ----------
    image : InputImage
        As `m3node.attention.images.reading.read_image` reads it.
    kind : BodyKind
        ``auto`` goes by the image's own kind, and looks for nothing in what is neither radiograph nor CT. ``ct`` and
        ``liver`` need HU.
    livers : LiverOutlines, optional
        Knows the series that a slice belongs to; without it no liver is found.

    Returns
    -------
    ndarray of bool, shape (rows, columns), or None
        None where nothing was looked for or found.
    """
    if kind is BodyKind.AUTO:
        kind = {ImageKind.XRAY: BodyKind.XRAY, ImageKind.CT: BodyKind.CT}.get(image.kind, BodyKind.NONE)
    body = None
    if kind is BodyKind.XRAY:
        body = body_of_radiograph(image.rgb)
    elif kind is BodyKind.CT and image.hu is not None:
        body = body_of_ct(image.hu, image.spacing)
    elif kind is BodyKind.LIVER and livers is not None:
        return livers.find(image)
    return body if body is not None and body.mean() >= MIN_SHARE else None


def body_of_radiograph(rgb: npt.NDArray[np.uint8]) -> Bools | None:
    """Outline the body in a radiograph on which dense is bright.

    White borders, where the field was shuttered off, are set aside. Then Otsu's threshold (N. Otsu, IEEE Trans. SMC 9
    (1979), 62-66), closed, opened, the largest part, filled. Filled is also what lies between parts of it along a row
    or a column: lungs are often open to the outside, where the shadow of the chest wall is as dark as they are or the
    image cuts it off. So are gaps between fingers, which count as body, too. Lungs at a corner of an image that shows
    little else are left out.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (rows, columns, 3)
        The image as shown.

    Returns
    -------
    ndarray of bool, shape (rows, columns), or None
        None where all is one grey.
    """
    small = _smaller(rgb)
    field = _exposed(small)
    seen = small[field]
    if min(seen.shape) < 3 or seen.min() == seen.max():
        return None
    radius = max(1.0, RADIUS_SHARE * max(seen.shape))
    dense = isotropic_opening(isotropic_closing(seen > threshold_otsu(seen), radius), radius)
    body = np.zeros(small.shape, dtype=np.bool_)
    body[field] = _spanned(largest_component(dense))
    whole = Image.fromarray(body).resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.NEAREST)
    return np.asarray(whole, dtype=np.bool_)


def _spanned(mask: Bools) -> Bools:
    """Fill holes, and what has mask on both sides along its row or its column."""
    spanned = mask
    for axis in (0, 1):
        before = np.logical_or.accumulate(mask, axis=axis)
        behind = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis=axis), axis)
        spanned = spanned | (before & behind)
    return np.asarray(ndi.binary_fill_holes(spanned))


def body_of_ct(hu: npt.NDArray[np.float32], spacing: tuple[float, float]) -> Bools:
    """Outline the body on a slice of CT: tissue, without the table, its largest part, filled.

    Parameters
    ----------
    hu : ndarray of float32, shape (rows, columns)
        HU.
    spacing : tuple of float
        mm between rows, columns.
    """
    tissue = ndi.binary_fill_holes(hu > CT_TISSUE_HU)
    return np.asarray(ndi.binary_fill_holes(largest_component(open_(tissue, CT_TABLE_MM, spacing))))


def _smaller(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Average blocks of whole pixels, of their brightest channel."""
    factor = -(-max(rgb.shape[:2]) // WORKED_SIDE)
    grey = Image.fromarray(rgb.max(axis=-1))
    return np.asarray(grey if factor == 1 else grey.reduce(factor))


def _exposed(grey: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """Leave out lines at the four borders that are white all along."""
    white = grey >= _SATURATED
    rows, columns = (np.flatnonzero(white.mean(axis=axis) < _UNEXPOSED_SHARE) for axis in (1, 0))
    if rows.size == 0 or columns.size == 0:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
