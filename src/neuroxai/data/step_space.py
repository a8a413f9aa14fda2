"""Steps that change the grid of an image, as moves with an inverse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.moves import Crop, Move, Reorientation, Stretch
from neuroxai.data.steps import (
    CenterCrop,
    CropForeground,
    Orient,
    Pad,
    Resample,
    Resize,
    Side,
    SpatialStep,
)

_UNCHANGED = 1e-3
"""Relative change of the voxel size below which MONAI does not resample."""


_SHEAR = 1e-2
"""Largest cosine between two axes that count as perpendicular."""


def plan_move(
    step: SpatialStep, image: NDArray[np.float32], affine: NDArray[np.float64]
) -> Move | None:
    """Return the move of a step on an image, None if it changes nothing.

    Parameters
    ----------
    step
        The step.
    image
        ``(C, X, Y, Z)``.
    affine
        From indices of the image to mm.

    Raises
    ------
    CaseError
        If no voxel is above the threshold of a crop.

    Examples
    --------
    >>> step = Pad(step="pad", size=(4, None, None))
    >>> plan_move(step, np.zeros((1, 3, 2, 2), np.float32), np.eye(4)).start
    (0, 0, 0)
    """
    shape = image.shape[1:]
    move: Move
    if isinstance(step, Orient):
        move = reorientation(shape, affine, step.axes)
        changed = move.axes != (0, 1, 2) or any(move.flips)
        return move if changed else None
    if isinstance(step, Resample):
        return _resample(step, shape, affine)
    if isinstance(step, Resize):
        return _resize(step, shape)
    if isinstance(step, CropForeground):
        move = _crop_foreground(step, image)
    elif isinstance(step, CenterCrop):
        size = _sizes(step.size, shape)
        edges = tuple(min(s, n) for s, n in zip(size, shape, strict=True))
        start = tuple(
            min(max(n // 2 - s // 2, 0), n - edge)
            for n, s, edge in zip(shape, size, edges, strict=True)
        )
        move = Crop(shape, start, edges)
    elif isinstance(step, Pad):
        move = _pad(shape, _sizes(step.size, shape), step.side, step.value)
    else:
        size = tuple(-(-n // k) * k for n, k in zip(shape, step.of, strict=True))
        move = _pad(shape, size, step.side, step.value)
    return move if move.pads or move.cuts else None


def reorientation(shape: Sequence[int], affine: NDArray[np.float64], axes: str) -> Reorientation:
    """Return the permutation and flips to the axes ``axes``.

    Examples
    --------
    >>> reorientation((4, 5, 6), np.diag([-1.0, 1, 1, 1]), "SAR").axes
    (2, 1, 0)
    """
    import nibabel as nib

    ornt = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes))
    )
    target = [int(axis) for axis in ornt[:, 0]]
    order = tuple(target.index(axis) for axis in range(3))
    return Reorientation(tuple(shape), order, tuple(bool(ornt[old, 1] < 0) for old in order))


def _pad(shape: Sequence[int], size: Sequence[int], side: Side, value: float) -> Crop:
    extra = [max(s - n, 0) for n, s in zip(shape, size, strict=True)]
    start = tuple(-(more // 2) if side == "both" else 0 for more in extra)
    grid = tuple(n + more for n, more in zip(shape, extra, strict=True))
    return Crop(tuple(shape), start, grid, value)


def _sizes(size: Sequence[int | None], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n if s is None else s for s, n in zip(size, shape, strict=True))


def _crop_foreground(step: CropForeground, image: NDArray[np.float32]) -> Crop:
    searched = image if step.channels is None else image[list(step.channels)]
    found: NDArray[np.bool_] = np.any(searched > step.above, axis=0)
    if not found.any():
        raise CaseError(
            f"no voxel is above {step.above:g}, so nothing can be cropped to; check the scan"
        )
    start, grid = [], []
    for axis, (margin, k) in enumerate(zip(step.margin, step.multiple_of, strict=True)):
        inside = np.flatnonzero(
            np.moveaxis(found, axis, 0).reshape(found.shape[axis], -1).any(axis=1)
        )
        low, high = int(inside[0]) - margin, int(inside[-1]) + margin + 1
        if step.inside:
            low, high = max(low, 0), min(high, found.shape[axis])
        edge = -(-(high - low) // k) * k
        start.append(low - (edge - (high - low)) // 2)
        grid.append(edge)
    return Crop(found.shape, tuple(start), tuple(grid), step.value)


def _resample(
    step: Resample, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> Stretch | None:
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / edges
    if np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR:
        raise CaseError(
            "the scan's axes are not perpendicular (sheared affine), so it cannot be resampled "
            "along them; resample it to perpendicular axes first"
        )
    scale = []
    nothing = (None, None, None)
    for mm, low, high, own in zip(
        step.mm, step.min_mm or nothing, step.max_mm or nothing, edges, strict=True
    ):
        wanted = own if mm is None else mm
        least = wanted if low is None else min(low, wanted)
        most = wanted if high is None else max(high, wanted)
        kept = least - _UNCHANGED <= own <= most + _UNCHANGED
        scale.append(1.0 if kept else float(wanted / own))
    grid = tuple(int(np.round((n - 1) / s + 1)) for n, s in zip(shape, scale, strict=True))
    if grid == shape and all(abs(s - 1) <= _UNCHANGED for s in scale):
        return None
    return Stretch(
        shape, grid, tuple(scale), (0.0,) * 3, step.interpolation,
        zero_outside=step.outside == "zero",
    )  # fmt: skip


def _resize(step: Resize, shape: tuple[int, ...]) -> Stretch | None:
    if step.longest is not None:
        factor = step.longest / max(shape)
        grid = tuple(round(n * factor) for n in shape)
    else:
        grid = _sizes(step.size or (None,) * 3, shape)
    if grid == shape:
        return None
    pairs = list(zip(shape, grid, strict=True))
    if step.interpolation == "linear" and step.align_corners:
        scale = tuple((n - 1) / (m - 1) if m > 1 else float(n) for n, m in pairs)
        return Stretch(shape, grid, scale, (0.0,) * 3, "linear")
    scale = tuple(n / m for n, m in pairs)
    offset = tuple((s - 1) / 2 for s in scale)
    if step.interpolation in ("area", "linear"):
        kind = "area" if step.interpolation == "area" else "linear"
        return Stretch(shape, grid, scale, offset, kind)  # type: ignore[arg-type]
    half = 0.5 if step.interpolation == "nearest_exact" else 0.0
    sources = tuple(tuple(min(int((i + half) * n / m), n - 1) for i in range(m)) for n, m in pairs)
    return Stretch(shape, grid, scale, offset, "nearest", sources=sources)
