"""Orthogonal planes of a RAS+ volume, displayed in the radiological convention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box

ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
"""Anatomical directions at the low and the high end of X, Y and Z of a RAS+ array."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Plane:
    """Anatomical plane in the radiological convention: both image axes run from high to low.

    The patient's right is on the left of the image. Anterior (axial) or superior (coronal,
    sagittal) is at the top. Sagittal planes are viewed from the patient's left, with the face to
    the left of the image.

    Attributes
    ----------
    across, up, through
        Array axes along the width, the height and the normal of the image.
    """

    name: str
    across: int
    up: int
    through: int

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """Anatomical directions at the left, right, top and bottom of the image."""
        (right, left), (bottom, top) = ENDS[self.across], ENDS[self.up]
        return left, right, top, bottom

    def cut(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """Return slice ``index`` of a volume ``(X, Y, Z)`` as an image, rows from the top.

        Examples
        --------
        >>> volume = np.zeros((4, 3, 2))
        >>> volume[0, 2, 1] = 1  # left anterior of the patient
        >>> AXIAL.cut(volume, 1)[0].tolist()  # top row: on the right of the image
        [0.0, 0.0, 0.0, 1.0]
        """
        flat: NDArray[Any] = np.take(volume, index, axis=self.through)
        return flat[::-1, ::-1].T


AXIAL = Plane("axial", across=0, up=1, through=2)
CORONAL = Plane("coronal", across=0, up=2, through=1)
SAGITTAL = Plane("sagittal", across=1, up=2, through=0)
PLANES = (AXIAL, CORONAL, SAGITTAL)


NO_LETTERS = ("", "", "", "")
"""For images with unknown laterality."""


def brain_box(
    volumes: Iterable[NDArray[Any]], spacing: Sequence[float], margin: float = 6.0
) -> Box:
    """Return the bounding box of all voxels that differ from the background, plus a margin in mm.

    The background value of each volume is that of the first voxel of its grid. If no voxel
    differs, the whole grid is returned.
    """
    brain = np.logical_or.reduce([volume != volume[0, 0, 0] for volume in volumes])
    x, y, z = bounding_box(brain, [int(np.ceil(margin / size)) for size in spacing])
    return x, y, z


def crop(box: Box, plane: Plane) -> Box:
    """Return ``box`` with the full extent along the normal of a plane, to keep slice indices."""
    x, y, z = (slice(None) if axis == plane.through else cut for axis, cut in enumerate(box))
    return x, y, z


def center(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the center voxel of the largest connected component of a nonempty mask.

    It is the rounded center of mass, which may be outside of a hollow component. The three planes
    through it always intersect the component, because it occupies every slice of its extent.
    """
    from scipy import ndimage

    components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    largest = 1 + int(np.argmax(np.bincount(components.ravel(), minlength=count + 1)[1:]))
    x, y, z = (int(v) for v in np.rint(np.argwhere(components == largest).mean(axis=0)))
    return x, y, z
