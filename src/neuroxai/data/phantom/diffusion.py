"""Flow between neighboring cells of a lattice, many times over."""

from __future__ import annotations

import math

import numpy as np

from neuroxai.data.phantom.field import Array


class Diffusion:
    r"""Net diffusive flow :math:`\nabla \cdot (D \nabla u)` on one lattice of unit pitch.

    Between two neighbors the harmonic mean of their diffusion counts; nothing crosses the border.
    The neighbor along an axis is so many places further in memory: on flat arrays, with 0 between
    the end of one row and the beginning of the next, an axis is one pass without gaps.

    Parameters
    ----------
    diffusion
        D ``(X, Y, Z)``, float32, 0 or more; below 1/6 a step ``u += flow(u)`` is stable.

    Examples
    --------
    >>> diffusion = Diffusion(np.full((3, 2, 2), 0.1, dtype=np.float32))
    >>> u = np.zeros((3, 2, 2), dtype=np.float32)
    >>> u[0, 0, 0] = 1
    >>> flow = diffusion.flow(u)
    >>> [round(float(flow[place]), 3) for place in ((0, 0, 0), (1, 0, 0), (2, 0, 0))]
    [-0.3, 0.1, 0.0]
    """

    def __init__(self, diffusion: Array) -> None:
        self._net = np.empty(diffusion.size, dtype=np.float32)
        self._shape = diffusion.shape
        self._axes: list[tuple[int, Array, Array]] = []
        for axis, size in enumerate(diffusion.shape):
            low = diffusion.take(range(size - 1), axis)
            high = diffusion.take(range(1, size), axis)
            between = np.zeros_like(diffusion)
            last = [slice(None)] * diffusion.ndim
            last[axis] = slice(size - 1)
            between[tuple(last)] = 2 * low * high / (low + high + 1e-12)
            further = math.prod(diffusion.shape[axis + 1 :])
            flat = between.reshape(-1)[:-further].copy()
            self._axes.append((further, flat, np.empty_like(flat)))

    def flow(self, values: Array) -> Array:
        """Return the net flow into every cell, ``(X, Y, Z)``; the next call writes over it."""
        u, net = values.reshape(-1), self._net
        net[:] = 0
        for further, between, across in self._axes:
            np.subtract(u[further:], u[:-further], out=across)
            across *= between
            net[:-further] += across
            net[further:] -= across
        return net.reshape(self._shape)
