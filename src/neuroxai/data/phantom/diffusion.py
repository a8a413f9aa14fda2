"""Finite-volume diffusion on a regular lattice."""

from __future__ import annotations

import math

import numpy as np

from neuroxai.data.phantom.field import Array


class Diffusion:
    r"""Net diffusive flow :math:`\nabla \cdot (D \nabla u)` on a lattice with unit spacing.

    The conductance between two neighbors is the harmonic mean of their diffusion coefficients;
    there is no flow across the border. Arrays are flattened, so that each axis takes one
    contiguous pass: a neighbor is a fixed offset away, and the conductance is 0 between the end
    of one row and the start of the next.

    Parameters
    ----------
    diffusion
        D ``(X, Y, Z)``, float32, nonnegative; a step ``u += flow(u)`` is stable for D below 1/6.

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
            offset = math.prod(diffusion.shape[axis + 1 :])
            flat = between.reshape(-1)[:-offset].copy()
            self._axes.append((offset, flat, np.empty_like(flat)))

    def flow(self, values: Array) -> Array:
        """Return the net flow into every cell, ``(X, Y, Z)``; the next call overwrites it."""
        u, net = values.reshape(-1), self._net
        net[:] = 0
        for offset, between, across in self._axes:
            np.subtract(u[offset:], u[:-offset], out=across)
            across *= between
            net[:-offset] += across
            net[offset:] -= across
        return net.reshape(self._shape)
