"""Smooth random fields and other spatial functions in mm, sampled on axis-aligned grids."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Axes = tuple[Array, Array, Array]
"""Coordinates in mm along the three axes of a grid."""

HALF_EXTENT = (102.0, 102.0, 87.0)
"""Half size in mm of the domain of all fields, around the center of the field of view."""


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of one component of a phantom.

    Each component has its own generator, so that a change to one does not affect the others.

    Examples
    --------
    >>> float(stream(1, "tumor").random()) == float(stream(1, "tumor").random())
    True
    >>> float(stream(1, "tumor").random()) == float(stream(1, "noise").random())
    False
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


@dataclass(frozen=True, eq=False)
class Field:
    """Values ``(X, Y, Z)`` on a cubic lattice with spacing ``pitch`` and origin ``start`` in mm."""

    data: Array
    start: tuple[float, float, float]
    pitch: float

    def on(self, axes: Axes) -> Array:
        """Interpolate trilinearly on the grid ``axes``; border values extend outward."""
        values = self.data
        # Last axis first: the array grows with each axis, and the largest step copies planes.
        for axis in (2, 1, 0):
            place = (axes[axis] - self.start[axis]) / self.pitch
            low = np.clip(np.floor(place), 0, values.shape[axis] - 2).astype(np.intp)
            along = [1, 1, 1]
            along[axis] = -1
            weight = np.clip(place - low, 0, 1).astype(np.float32).reshape(along)
            below = np.take(values, low, axis=axis)
            above = np.take(values, low + 1, axis=axis)
            above -= below
            above *= weight
            above += below
            values = above
        return values


def lattice(pitch: float) -> tuple[Axes, tuple[float, float, float]]:
    """Return the coordinates of the lattice that covers the domain, and its first point."""
    counts = [int(np.ceil(2 * half / pitch)) + 1 for half in HALF_EXTENT]
    start = tuple(-pitch * (count - 1) / 2 for count in counts)
    x, y, z = (
        (first + pitch * np.arange(count)).astype(np.float32)
        for first, count in zip(start, counts, strict=True)
    )
    return (x, y, z), (start[0], start[1], start[2])


def smooth_noise(generator: np.random.Generator, sigma: float) -> Field:
    """Return Gaussian noise of zero mean and unit variance, smoothed with ``sigma`` mm."""
    from scipy.ndimage import gaussian_filter

    pitch = max(0.7 * sigma, 1.25)
    axes, start = lattice(pitch)
    white = generator.standard_normal([axis.size for axis in axes], dtype=np.float32)
    smooth = gaussian_filter(white, sigma / pitch, mode="wrap", truncate=3)
    smooth -= smooth.mean()
    smooth /= smooth.std()
    return Field(smooth, start, pitch)


def ramp(values: Array, width: float) -> Array:
    """Return a smooth step that is exactly 0 below ``-width`` and exactly 1 above ``width``."""
    t = np.clip(values / (2 * width) + 0.5, 0, 1).astype(np.float32)
    result: Array = t * t * (3 - 2 * t)
    return result


def distances(axes: Axes, center: NDArray[np.float64]) -> Array:
    """Return the distance in mm of all grid points to ``center``."""
    x, y, z = (axis - np.float32(middle) for axis, middle in zip(axes, center, strict=True))
    squared = x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2
    result: Array = np.sqrt(squared, dtype=np.float32)
    return result
