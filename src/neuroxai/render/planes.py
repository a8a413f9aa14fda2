"""Where to cut a RAS+ volume and how to lay the cut before a radiologist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box

ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
"""The patient's side at the low and the high end of X, Y and Z of a RAS+ array."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Plane:
    """A cut in the radiological convention: both of its axes run from high to low on the page.

    So the patient's right is on the image's left, front (axial) or head (coronal, sagittal) is
    up, and a sagittal cut looks from the patient's left, the face to the image's left.

    Attributes
    ----------
    across, up, through
        Array axes along the picture's width, its height, and through the page.
    """

    name: str
    across: int
    up: int
    through: int

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """The patient's sides at the picture's left, right, top and bottom."""
        (right, left), (bottom, top) = ENDS[self.across], ENDS[self.up]
        return left, right, top, bottom

    def cut(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """Return slice ``index`` of ``(X, Y, Z)`` as a picture, rows from the top.

        Examples
        --------
        >>> volume = np.zeros((4, 3, 2))
        >>> volume[0, 2, 1] = 1  # the patient's left, front
        >>> AXIAL.cut(volume, 1)[0].tolist()  # the top row: the mark is on the image's right
        [0.0, 0.0, 0.0, 1.0]
        """
        flat: NDArray[Any] = np.take(volume, index, axis=self.through)
        return flat[::-1, ::-1].T


AXIAL = Plane("axial", across=0, up=1, through=2)
CORONAL = Plane("coronal", across=0, up=2, through=1)
SAGITTAL = Plane("sagittal", across=1, up=2, through=0)
PLANES = (AXIAL, CORONAL, SAGITTAL)


NO_LETTERS = ("", "", "", "")
"""Of a picture that does not say which side is where."""


def brain_box(
    volumes: Iterable[NDArray[Any]], spacing: Sequence[float], margin: float = 6.0
) -> Box:
    """Return the slices around all voxels that differ from air, with ``margin`` in mm.

    Air is the value of the grid's first corner, by volume. Where nothing differs from it the
    whole grid is returned.
    """
    brain = np.logical_or.reduce([volume != volume[0, 0, 0] for volume in volumes])
    x, y, z = bounding_box(brain, [int(np.ceil(margin / size)) for size in spacing])
    return x, y, z


def crop(box: Box, plane: Plane) -> Box:
    """Return ``box`` with the axis through the page left whole, so that indices stay true."""
    x, y, z = (slice(None) if axis == plane.through else cut for axis, cut in enumerate(box))
    return x, y, z


def center(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the center voxel of the largest connected part of a mask that is not empty.

    It is the rounded center of mass, also where a ring leaves it hollow. The three planes
    through it always meet the part, because a connected part skips no slice of its extent.
    """
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    largest = 1 + int(np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:]))
    x, y, z = (int(v) for v in np.rint(np.argwhere(parts == largest).mean(axis=0)))
    return x, y, z
