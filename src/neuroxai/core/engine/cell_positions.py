"""Positions of a tensor's cells on the image, from the operations that made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

_INT64 = 1 << 64


@dataclass(frozen=True)
class CellPositions:
    """Centers of cells along each axis: cell ``j`` is at ``first + scale * j`` of the image.

    Attributes
    ----------
    scale
        Distance of two cells in voxels.
    first
        Center of the first cell, as the index of a voxel.
    """

    scale: tuple[float, ...]
    first: tuple[float, ...]

    def within(self, outer: CellPositions) -> CellPositions:
        """Return the positions on the image, if these are on a grid with positions ``outer``."""
        pairs = [*zip(self.scale, self.first, outer.scale, outer.first, strict=True)]
        return CellPositions(
            tuple(s * t for s, _, t, _ in pairs), tuple(b + t * a for _, a, t, b in pairs)
        )

    def is_cropped(self, cells: Sequence[int], size: Sequence[int]) -> bool:
        """Return whether the cells leave at least the width of one cell uncovered on an axis."""
        widths = zip(self.scale, cells, size, strict=True)
        return any(n - scale * count >= scale for scale, count, n in widths)

    def box(self, cells: Sequence[int], size: Sequence[int]) -> tuple[slice, ...] | None:
        """Return the part of the image that cells of one voxel cover; None for other cells."""
        starts = [round(each) for each in self.first]
        exact = all(abs(a - b) < 1e-6 for a, b in zip(self.first, starts, strict=True))
        ends = [start + count for start, count in zip(starts, cells, strict=True)]
        inside = all(a >= 0 and b <= n for a, b, n in zip(starts, ends, size, strict=True))
        if any(scale != 1 for scale in self.scale) or not exact or not inside:
            return None
        return tuple(map(slice, starts, ends))

    def place(self, values: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate ``(B, C, *S)`` linearly on the image; zero where no cell is.

        Examples
        --------
        >>> one_voxel_cropped = CellPositions((1.0,), (1.0,))
        >>> one_voxel_cropped.place(torch.tensor([[[2.0, 3.0]]]), (4,))
        tensor([[[0., 2., 3., 0.]]])
        """
        for axis, (count, scale, first) in enumerate(
            zip(size, self.scale, self.first, strict=True), start=2
        ):
            cells = values.shape[axis]
            place = (torch.arange(count, dtype=torch.float64) - first) / scale
            covered = (place >= -0.5 - 1e-9) & (place <= cells - 0.5 + 1e-9)
            place = place.clamp(0, cells - 1)
            low = place.floor().clamp(max=max(cells - 2, 0)).long()
            share = place - low
            weights = torch.zeros(cells, count, dtype=torch.float64)
            weights[low, torch.arange(count)] = 1 - share
            weights[(low + 1).clamp(max=cells - 1), torch.arange(count)] += share
            weights = (weights * covered).to(values)
            values = torch.tensordot(values, weights, dims=([axis], [0])).movedim(-1, axis)
        return values


def cell_positions(edge: GradientEdge, image: Any, dims: int) -> CellPositions | None:
    """Return the positions of a tensor's cells, from its graph; None if they are unknown.

    Kernels, strides, padding, dilation, scale factors and slices of each operation are added up;
    operations that keep the shape of the spatial axes keep the positions. Where branches are
    joined, the one through the finest grids decides, as the skip connection in a U-Net.

    Parameters
    ----------
    edge
        The tensor's place in the graph.
    image
        The node of the image, a leaf of the graph.
    dims
        The number of spatial axes.

    Examples
    --------
    >>> from torch.autograd.graph import get_gradient_edge
    >>> x = torch.zeros(1, 1, 9, 9, requires_grad=True)
    >>> image = get_gradient_edge(x).node
    >>> low = torch.conv2d(x, torch.ones(1, 1, 3, 5), stride=2)
    >>> cell_positions(get_gradient_edge(low), image, 2)
    CellPositions(scale=(2.0, 2.0), first=(1.0, 2.0))
    """
    same = CellPositions((1.0,) * dims, (0.0,) * dims)
    # For each output of a node: the coarsest scale on the way to it, and its positions.
    found: dict[tuple[Any, int], tuple[float, CellPositions] | None] = {(image, 0): (1.0, same)}
    stack: list[tuple[Any, int]] = [(edge.node, edge.output_nr)]
    while stack:
        key = stack[-1]
        if key in found:
            stack.pop()
            continue
        node, number = key
        nexts = [(n, i) for n, i in _inputs(node) if n is not None]
        missing = [each for each in nexts if each not in found]
        if missing:
            stack += missing
            continue
        stack.pop()
        best: tuple[float, CellPositions] | None = None
        for each in nexts:
            before = found[each]
            step = None if before is None else _step(node, number, each, dims)
            if before is None or step is None:
                continue
            here = step.within(before[1])
            coarsest = max(before[0], *here.scale)
            if best is None or coarsest < best[0]:
                best = coarsest, here
        found[key] = best
    result = found[edge.node, edge.output_nr]
    return None if result is None else result[1]


def _inputs(node: Any) -> Sequence[tuple[Any, int]]:
    """Return the inputs of an operation that have positions; of a convolution not its weights."""
    kind = node.name().rpartition("::")[2]
    inputs: tuple[tuple[Any, int], ...] = node.next_functions
    return inputs[:1] if kind.startswith("Convolution") else inputs


def _shape(node: Any, number: int, dims: int) -> tuple[int, ...] | None:
    """Return the spatial shape of a node's output; None if it has other axes."""
    shape = tuple(int(n) for n in node._input_metadata[number].shape)
    return shape[2:] if len(shape) == dims + 2 else None


def _step(node: Any, number: int, before: tuple[Any, int], dims: int) -> CellPositions | None:
    """Return the positions of a node's output on the grid of its input; None if unknown."""
    shape, given = _shape(node, number, dims), _shape(*before, dims)
    if shape is None or given is None:
        return None
    kind = node.name().rpartition("::")[2].rstrip("0123456789")
    make = next((each for name, each in _STEPS.items() if kind.startswith(name)), None)
    if make is not None:
        return make(node, shape, given)
    if shape != given:
        return None
    return CellPositions((1.0,) * dims, (0.0,) * dims)


def _windows(kernel: Sequence[int], node: Any, dims: int) -> CellPositions:
    """Return the centers of the windows that a convolution or pooling moves over its input."""
    stride = _each(node._saved_stride, dims) or _each(kernel, dims)
    padding = _each(node._saved_padding, dims)
    dilation = _each(getattr(node, "_saved_dilation", (1,)), dims)
    centers = [
        d * (k - 1) / 2 - p for k, p, d in zip(_each(kernel, dims), padding, dilation, strict=True)
    ]
    return CellPositions(tuple(map(float, stride)), tuple(centers))


def _convolution(node: Any, shape: Any, given: Any) -> CellPositions:
    kernel = tuple(node._saved_weight.shape[2:])
    found = _windows(kernel, node, len(shape))
    if not node._saved_transposed:
        return found
    # The convolution whose transpose this is maps the output to the input.
    return CellPositions(
        tuple(1 / s for s in found.scale),
        tuple(-a / s for s, a in zip(found.scale, found.first, strict=True)),
    )


def _pooling(node: Any, shape: Any, given: Any) -> CellPositions:
    return _windows(node._saved_kernel_size, node, len(shape))


def _interpolation(node: Any, shape: Any, given: Any) -> CellPositions:
    if getattr(node, "_saved_align_corners", False):
        scale = tuple((n - 1) / max(m - 1, 1) for m, n in zip(shape, given, strict=True))
        return CellPositions(scale, (0.0,) * len(shape))
    return _evenly(node, shape, given)


def _evenly(node: Any, shape: Any, given: Any) -> CellPositions:
    scale = tuple(n / m for m, n in zip(shape, given, strict=True))
    return CellPositions(scale, tuple((s - 1) / 2 for s in scale))


def _padding(name: str) -> Callable[[Any, Any, Any], CellPositions]:
    def step(node: Any, shape: Any, given: Any) -> CellPositions:
        # From the last axis backwards; there may be fewer pairs than axes.
        pairs = getattr(node, name)[::2][: len(shape)]
        before = [0.0] * (len(shape) - len(pairs)) + [float(-n) for n in reversed(pairs)]
        return CellPositions((1.0,) * len(shape), tuple(before))

    return step


def _slice(node: Any, shape: Any, given: Any) -> CellPositions:
    axis, start = int(node._saved_dim), int(node._saved_start)
    axis = axis - _INT64 if axis >= _INT64 // 2 else axis
    axis = axis % (len(shape) + 2) - 2
    scale, first = [1.0] * len(shape), [0.0] * len(shape)
    if axis >= 0:
        start = start - _INT64 if start >= _INT64 // 2 else start
        start = max(start + given[axis], 0) if start < 0 else min(start, given[axis])
        scale[axis], first[axis] = float(node._saved_step), float(start)
    return CellPositions(tuple(scale), tuple(first))


def _unknown(node: Any, shape: Any, given: Any) -> None:
    return None


_STEPS: dict[str, Callable[[Any, Any, Any], CellPositions | None]] = {
    "Convolution": _convolution,
    "MaxPool": _pooling,
    "AvgPool": _pooling,
    "AdaptiveAvgPool": _evenly,
    "AdaptiveMaxPool": _evenly,
    "Upsample": _interpolation,
    "ConstantPadNd": _padding("_saved_pad"),
    "ReflectionPad": _padding("_saved_padding"),
    "ReplicationPad": _padding("_saved_padding"),
    "Slice": _slice,
    # These may keep the shape and move the cells.
    "Roll": _unknown, "Flip": _unknown, "Permute": _unknown, "Transpose": _unknown,
    "Index": _unknown, "Gather": _unknown, "View": _unknown, "UnsafeView": _unknown,
    "ReshapeAlias": _unknown, "AsStrided": _unknown, "CopySlices": _unknown, "Mm": _unknown,
    "Bmm": _unknown, "GridSampler": _unknown, "PixelShuffle": _unknown, "Expand": _unknown,
}  # fmt: skip
"""Beginnings of the names of operations that change the grid."""


def _each(values: Any, dims: int) -> tuple[int, ...]:
    """Return one number for each axis."""
    listed = tuple(int(n) for n in values) if isinstance(values, (tuple, list)) else (int(values),)
    return listed * dims if len(listed) == 1 else listed
