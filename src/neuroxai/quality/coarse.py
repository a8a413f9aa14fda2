"""A case on a coarse grid in RAS+ orientation, with the foreground of each sequence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case import Case
from neuroxai.data.placement import Placement

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

COARSE_MM = 2.0
"""Voxels are averaged to about this size: sulci and ventricles stay visible, and a case takes one
eighth of the time of one with voxels of 1 mm."""

DEPTH_MM = 4.0
"""Depth below the surface of the brain from which values are compared, without the cortex's rim."""

_CORNER = 0.05  # edge of the blocks in the corners, as a fraction of each axis
_NOISE = 6.0  # standard deviations of the background's noise above it
_FLOOR = 1e-3  # smallest distance from the background, as a fraction of the range of values
_FULL = 0.85  # a foreground with more of the image has no background; Otsu's threshold is used
_TAIL = 5e-4  # fraction of values that are winsorised at each end
_SAMPLES = 2**18  # voxels from which quantiles are taken


class CannotTellError(Exception):
    """A check cannot tell; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence of a case.

    Attributes
    ----------
    name
        Name of the sequence.
    native
        The volume on the case's grid ``(I, J, K)``.
    image
        ``(X, Y, Z)``, winsorised and averaged to the coarse grid.
    mask
        ``(X, Y, Z)``, the foreground: largest component, closed and filled.
    background
        Median of the corners.
    values
        Finite values in the foreground, before filling, sorted; a subsample of the native volume.
    foreground_voxels
        Number of native voxels that differ from the background.
    """

    name: str
    native: Image
    image: Image
    mask: Mask
    background: float
    values: Image
    foreground_voxels: int


@dataclass(frozen=True, eq=False)
class CoarseCase:
    """All sequences of a case on one coarse grid.

    Attributes
    ----------
    sequences
        Name to sequence, in the order of the case.
    spacing
        Voxel size of the coarse grid in mm, along X, Y, Z.
    extent
        Edges of the image in mm.
    laterality_known
        False for pictures.
    """

    sequences: Mapping[str, Sequence]
    spacing: tuple[float, float, float]
    extent: tuple[float, float, float]
    laterality_known: bool = True

    @classmethod
    def of(cls, case: Case) -> CoarseCase:
        """Average a case to the coarse grid."""
        placement = Placement.fit(case.shape, case.affine)
        fine = tuple(case.spacing[axis] for axis in placement.axes)
        factors = tuple(
            max(1, min(round(COARSE_MM / mm), n))
            for mm, n in zip(fine, placement.reoriented_shape, strict=True)
        )
        x, y, z = (mm * factor for mm, factor in zip(fine, factors, strict=True))
        sequences = {
            name: _sequence(name, volume, placement.reorient(volume), factors, (x, y, z))
            for name, volume in case.volumes.items()
        }
        a, b, c = (n * mm for n, mm in zip(placement.reoriented_shape, fine, strict=True))
        return cls(sequences, (x, y, z), (a, b, c), case.laterality_known)

    @property
    def voxel_ml(self) -> float:
        """Volume of a coarse voxel in ml."""
        return float(np.prod(self.spacing)) / 1000

    @property
    def flat(self) -> bool:
        """Whether the image is a slice or a few of them."""
        return min(self.shape) < 8

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the coarse grid ``(X, Y, Z)``."""
        x, y, z = next(iter(self.sequences.values())).image.shape
        return int(x), int(y), int(z)

    @cached_property
    def brain(self) -> Mask:
        """Voxels in the foreground of at least three of four sequences, or of most of them."""
        masks = [each.mask for each in self.sequences.values()]
        count: NDArray[np.uint8] = np.stack(masks).sum(axis=0, dtype=np.uint8)
        result: Mask = count >= len(masks) // 2 + 1
        return result

    @cached_property
    def depth(self) -> Image:
        """Distance to the surface of :attr:`brain` in mm; 0 outside."""
        from scipy.ndimage import distance_transform_edt

        box = bounding_box(self.brain, margin=1)
        padded = np.pad(self.brain[box], 1)  # the border of the image is outside the brain
        distance = distance_transform_edt(padded, sampling=self.spacing)
        result = np.zeros(self.shape, np.float32)
        result[box] = distance[1:-1, 1:-1, 1:-1]
        return result

    @cached_property
    def deep(self) -> Mask:
        """The brain without its outermost 4 mm."""
        result: Mask = self.depth > DEPTH_MM
        return result

    @cached_property
    def gauss_ranks(self) -> Mapping[str, Image]:
        """Ranks of each sequence's values in :attr:`deep`, as quantiles of a normal distribution.

        They do not depend on the units or on the window of a scan.
        """
        from scipy.special import ndtri

        found = {}
        for name, sequence in self.sequences.items():
            values = sequence.image[self.deep]
            order = np.argsort(values, kind="stable")
            ranks = np.empty(values.size, np.float64)
            ranks[order] = (np.arange(values.size) + 0.5) / max(values.size, 1)
            found[name] = ndtri(ranks).astype(np.float32)
        return found

    def require(self, *names: str) -> None:
        """Raise :class:`CannotTellError` unless the case has these sequences."""
        missing = [name for name in names if name not in self.sequences]
        if missing:
            raise CannotTellError(f"needs {', '.join(names)}; the case has no {', '.join(missing)}")

    def require_volume(self) -> None:
        """Raise :class:`CannotTellError` unless the image is a volume with a foreground."""
        if self.flat:
            raise CannotTellError("needs a 3D scan")
        if not self.deep.any():
            raise CannotTellError("needs a foreground, and the sequences have none in common")


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """Return the bounding box of a mask with a margin; the whole image for an empty mask."""
    if not mask.any():
        return tuple(slice(0, n) for n in mask.shape)
    box = []
    for axis, n in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, n)))
    return tuple(box)


def _sequence(
    name: str, native: Image, upright: Image, factors: tuple[int, ...], spacing: tuple[float, ...]
) -> Sequence:
    background, noise = _corners(upright)
    step = -(-upright.size // _SAMPLES) | 1  # odd, so that it does not follow even rows
    sample = np.asarray(native).ravel(order="K")[::step]
    sample = sample[np.isfinite(sample)].astype(np.float64)
    away = np.abs(sample - background)
    span = float(np.quantile(away, 1 - _TAIL)) if away.size else 0.0
    limit = max(_NOISE * noise, _FLOOR * span)
    inside = away > limit
    if inside.mean() > _FULL if inside.size else False:
        limit = max(limit, _otsu(np.minimum(away, span)))
        inside = away > limit
    values = np.sort(sample[inside]).astype(np.float32)
    low, high = (
        np.quantile(sample[inside], (_TAIL, 1 - _TAIL)) if values.size else (background, background)
    )
    low, high = min(low, background), max(high, background)
    image, share, count = _average(upright, factors, background, limit, (float(low), float(high)))
    return Sequence(name, native, image, _filled(share >= 0.5, spacing), background, values, count)


def _corners(volume: Image) -> tuple[float, float]:
    """Return the median of the corners of a volume, and a robust deviation from it."""
    for axis, n in enumerate(volume.shape):
        width = max(1, int(_CORNER * n))
        index = np.arange(n)
        volume = volume.take(index[(index < width) | (index >= n - width)], axis=axis)
    values = volume[np.isfinite(volume)].astype(np.float64)
    if not values.size:
        return 0.0, 0.0
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


def _otsu(values: NDArray[np.float64]) -> float:
    """Return Otsu's threshold: it maximizes the variance between the two parts."""
    counts, edges = np.histogram(values, 256)
    centers = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = total / below - (total[-1] - total) / above
        between = np.nan_to_num(below * above * gap**2)
    return float(centers[int(between.argmax())])


def _average(
    upright: Image,
    factors: tuple[int, ...],
    background: float,
    limit: float,
    window: tuple[float, float],
) -> tuple[Image, Image, int]:
    """Return the mean of blocks, their share of foreground, and the foreground's native voxels."""
    size = tuple(n // factor for n, factor in zip(upright.shape, factors, strict=True))
    total, share = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for offset in itertools.product(*map(range, factors)):
        part = upright[
            tuple(
                slice(start, start + n * factor, factor)
                for start, n, factor in zip(offset, size, factors, strict=True)
            )
        ]
        part = np.where(np.isfinite(part), part, np.float32(background))
        total += part.clip(*window)
        share += np.abs(part - np.float32(background)) > limit
    count = int(share.sum(dtype=np.float64))
    blocks = np.float32(np.prod(factors))
    total /= blocks
    share /= blocks
    return total, share, count


def _filled(mask: Mask, spacing: tuple[float, ...]) -> Mask:
    """Return the largest component, closed by about 4 mm and without holes."""
    from scipy import ndimage

    if not mask.any():
        return mask
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    turns = max(1, round(DEPTH_MM / max(spacing)))
    box = bounding_box(mask)
    structure: Any = ndimage.generate_binary_structure(3, 1)
    padded = np.pad(mask[box], turns)
    closed = ndimage.binary_closing(padded, structure, iterations=turns)
    whole = np.zeros(mask.shape, bool)
    inner = tuple(slice(turns, -turns) for _ in range(3))
    whole[box] = ndimage.binary_fill_holes(closed)[inner] | mask[box]
    return whole
