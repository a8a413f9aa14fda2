"""Methods whose map is a layer's activation and gradient, reduced to one channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import LayerError
from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.layers.labels import AUTO, format_grid, grid_of, is_auto, without_grid
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.reduction import (
    ChannelWeightedReduction,
    LayerReduction,
    PositionwiseReduction,
)
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import LayerMap, Request
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.core.vocabulary import place_in_words
from neuroxai.methods.base import Method
from neuroxai.methods.zero_maps import layer_reason

_COARSE = 8.0
"""Edge of a cell in voxels from which the map carries a note on its resolution: 8 mm on a grid of
1 mm, the diameter of a small lesion."""


WHERE_ONLY = "by construction"
"""In the note on a map that is zero outside its target's mask, whatever the network has learned."""


@dataclass(frozen=True)
class ClassActivationMethod(Method):
    """A method whose map is reduced from a layer, interpolated to the input's grid.

    A subclass names the reduction, which may be defined next to it. The map has the shape
    ``(B, 1, *S)``; it is rectified unless the method is ``signed``.

    A layer's cells divide the input evenly, as in other implementations, unless convolutions
    without padding leave a part of it without cells: then each cell is put where the kernels,
    strides and crops before it center it, and the map is zero where no cell is. Otherwise the
    receptive field of a cell may be centered up to half a cell before that: behind strided
    convolutions with odd kernels it is, in the last layer of a ResNet-50 by 15.5 pixels.

    Parameters
    ----------
    layer
        A layer by name; ``name:input`` for the input of a convolution; ``name@14x14`` for a layer
        on a given grid; or ``auto``: a classifier's last layer with spatial extent (a convolution,
        or the last block of a transformer whose patch tokens matter), the input of a segmenter's
        output convolution.
    """

    shared: ClassVar[bool] = True
    reduction: ClassVar[LayerReduction]

    layer: str = AUTO

    @property
    def quantity(self) -> Quantity:
        """A weighted activation."""
        return "activation"

    @property
    def requests(self) -> frozenset[Request]:
        """The layer's map."""
        return frozenset([LayerMap(self.layer, self.reduction)])

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the layer's map on the input's grid."""
        layer, found = self.layer_values(probe, x)
        low = found if self.signed else found.clamp(min=0)
        values = probe.place(low, layer, x)
        cells = probe.cell_size(x, layer)
        notes = (
            *self._call_notes(layer),
            *_grid_notes(layer),
            *_resolution_notes(layer, cells),
            *_position_notes(probe, layer, x),
            *self._restriction_notes(probe, x, found),
        )
        diagnostics = {
            "layer_shape": list(layer.shape),
            "cell_voxels": list(cells),
            "negative_fraction": (found < 0).flatten(1).double().mean(dim=1).tolist(),
        }
        return Attribution(values, diagnostics, notes, layer.name)

    def layer_values(self, probe: Probe, x: Tensor) -> tuple[Layer, Tensor]:
        """Return the layer and its map ``(B, 1, *S_layer)`` before it is rectified."""
        return probe.layer_map(x, self.layer, self.reduction)

    def _call_notes(self, layer: Layer) -> Iterator[str]:
        """Yield which call a default layer is, if its module runs several times in a pass."""
        name, _, call = without_grid(layer.name).partition("#")
        if is_auto(self.layer) and call:
            other = f"{name}#{2 if call == '1' else 1}"
            yield (
                f"{name} runs several times in a pass, and the map is that of call {call}: name "
                f"another one as layer={other}"
            )

    def zero_reason(self, probe: Probe, x: Tensor, sample: int) -> str:
        """Return why the map is zero: rectified, or without activation or gradient."""
        layer, found = probe.layer_map(x, self.layer, self.reduction)
        rectified = f"the map of layer {layer.name} has no positive value and was rectified to zero"
        if bool(found[sample].any()) and not self.signed:
            return rectified
        exactly = f"the map of layer {layer.name} is exactly zero because"
        if not self._has_any(probe, x, sample, _GradientSize()):
            return f"{exactly} {layer_reason(probe, x, sample, layer.name)}"
        if not self._has_any(probe, x, sample, _ActivationSize()):
            return f"{exactly} every unit of the layer is zero on this image"
        if not self.signed and not isinstance(self.reduction, ChannelWeightedReduction):
            return rectified
        return f"{exactly} its gradients are zero wherever its activations are not, or cancel out"

    def _has_any(self, probe: Probe, x: Tensor, sample: int, size: LayerReduction) -> bool:
        """Return whether a size at the layer is anywhere different from zero."""
        try:
            return bool(probe.layer_map(x, self.layer, size)[1][sample].any())
        except LayerError:
            return False

    def _restriction_notes(self, probe: Probe, x: Tensor, found: Tensor) -> Iterator[str]:
        """Yield what a restricted target means for the map."""
        mask, within = probe.target.mask, probe.target.description["within"]
        if mask is None:
            return
        place = place_in_words(str(within))
        if isinstance(self.reduction, ChannelWeightedReduction):
            yield (
                f"the target is restricted to {place}, the map is not: it shows every place where "
                "the filters that matter there are active"
            )
        elif _is_zero_outside(found, probe.layer_grid(x), mask):
            yield (
                f"the map is zero outside {place} {WHERE_ONLY}, as each voxel of the output "
                "depends on the same voxel of this layer alone: it shows where the target is "
                "rather than why; name a deeper layer for the evidence around it"
            )


@dataclass(frozen=True)
class _GradientSize(PositionwiseReduction):
    """Sum of the absolute gradients of a cell's channels."""

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.abs().sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class _ActivationSize(PositionwiseReduction):
    """Sum of the absolute activations of a cell's channels."""

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return activation.abs().sum(dim=1, keepdim=True)


def _grid_notes(layer: Layer) -> Iterator[str]:
    """Yield how the cells of a layer were found, if its grid was given."""
    grid = grid_of(layer.name)
    if grid is None:
        return
    others = (
        f"; the {layer.leading} token(s) before them are left out as class or register tokens"
        if layer.leading
        else ""
    )
    yield (
        f"the cells of layer {without_grid(layer.name)} were put on the given grid "
        f"{format_grid(grid)}{others}"
    )


def _position_notes(probe: Probe, layer: Layer, x: Tensor) -> Iterator[str]:
    """Yield which part of the image the cells of a layer cover, if it is not all of it."""
    positions = probe.positions(layer, x)
    if positions is None:
        return
    edges = [
        (first - scale / 2 + 0.5, first + scale * (count - 0.5) + 0.5)
        for first, scale, count in zip(
            positions.first, positions.scale, layer.shape[1:], strict=True
        )
    ]
    parts = ", ".join(
        f"{low:g} to {high:g} of {n}" for (low, high), n in zip(edges, x.shape[2:], strict=True)
    )
    yield (
        f"the cells of layer {layer.name} cover the voxels {parts} of the network's grid, as "
        "convolutions without padding leave out the borders: the map is zero there because no "
        "cell is there"
    )


def _resolution_notes(layer: Layer, cells: tuple[float, ...]) -> Iterator[str]:
    if max(cells) >= _COARSE:
        edges = " x ".join(f"{edge:.3g}" for edge in cells)
        yield (
            f"resolution: one cell of layer {layer.name} covers {edges} voxels of the network's "
            "grid, so positions are uncertain by half a cell"
        )


def _is_zero_outside(found: Tensor, grid: tuple[int, ...], mask: Tensor) -> bool:
    """Return whether a map of full resolution is exactly zero where a mask ``(B, *S)`` is zero."""
    if spatial_shape(found) == tuple(mask.shape[1:]):
        values = found[:, 0]
    elif spatial_shape(found) == grid:
        values = resample_to(found, grid, mask.shape[1:])[:, 0]
    else:
        return False
    outside = mask.to(values.device) == 0
    return bool(outside.any()) and not bool(values[outside].any())
