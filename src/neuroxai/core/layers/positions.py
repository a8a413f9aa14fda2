"""Where the cells of a layer and of the output are on the image, from a pass without values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from neuroxai.core.engine.cell_positions import CellPositions, cell_positions
from neuroxai.core.engine.network_state import restored
from neuroxai.core.errors import NETWORK_ERRORS, NeuroXAIError
from neuroxai.core.layers.layer_calls import LayerCalls
from neuroxai.core.layers.layers import Layer, LayerHooks, layer_grid
from neuroxai.core.layers.layout import Rearrange
from neuroxai.core.spatial import spatial_shape


@dataclass(frozen=True)
class Traced:
    """The positions of an output and of some layers.

    Attributes
    ----------
    output
        Those of the output's voxels; None if they are unknown, or the output has no space.
    shape
        The output's shape.
    layers
        Those of the layers' cells by label, where they are known.
    """

    output: CellPositions | None = None
    shape: tuple[int, ...] = ()
    layers: Mapping[str, CellPositions] = field(default_factory=dict)


def may_crop(network: nn.Module) -> bool:
    """Return whether a convolution may return fewer voxels than its stride explains.

    A network without convolution modules may, as it may call them as functions.
    """
    convolutions = [module for module in network.modules() if isinstance(module, _ConvNd)]
    return not convolutions or any(map(_crops, convolutions))


def _crops(module: _ConvNd) -> bool:
    if isinstance(module, _ConvTransposeNd) or module.padding == "same":
        return False
    padding = (0,) * len(module.kernel_size) if isinstance(module.padding, str) else module.padding
    # A stride as wide as the kernel divides the image evenly.
    axes = zip(module.kernel_size, module.dilation, module.stride, padding, strict=True)
    return any(d * (k - 1) + 1 - max(s, 1) > 2 * p for k, d, s, p in axes)


def cropped_positions(
    network: nn.Module,
    x: Tensor,
    run: Callable[[Any], Tensor],
    layers: Collection[Layer],
    *,
    functions: bool = False,
) -> dict[str, CellPositions]:
    """Return the positions of layers whose cells cover a part of the image, by label.

    Parameters
    ----------
    network, x, run
        See :func:`trace`.
    layers
        Layers that ran on ``x``.
    functions
        Whether convolutions that are called as functions are among them.
    """
    size = spatial_shape(x)
    if layer_grid(network, size) != size or not may_crop(network):
        return {}
    names = {name.name.partition("#")[0] for name in layers}
    found = trace(network, x, run, names, functions=functions).layers
    return {
        layer.name: found[layer.name]
        for layer in layers
        if layer.name in found and found[layer.name].is_cropped(layer.shape[1:], size)
    }


def trace(
    network: nn.Module,
    x: Tensor,
    run: Callable[[Any], Tensor],
    names: Collection[str] = (),
    *,
    functions: bool = False,
) -> Traced:
    """Return the positions of the output and of named layers; nothing if the trace fails.

    The network runs on the meta device, which computes shapes and the graph, and no values.

    Parameters
    ----------
    network
        The network.
    x
        An image ``(B, C, *S)``; its shape and type are used alone.
    run
        Selects the output from what the network returns.
    names
        Labels of layers.
    functions
        Whether convolutions that are called as functions are visited, and no named layer.
    """
    dims = x.dim() - 2
    edges: dict[str, Any] = {}

    def visit(layer: Layer, output: Tensor, rearrange: Rearrange | None) -> None:
        if rearrange is None and output.requires_grad:
            edges[layer.name] = get_gradient_edge(output)

    values = [*network.named_parameters(), *network.named_buffers()]
    try:
        # Inside of the network's own devices and types, without memory for values.
        state = {name: value.detach().to("meta") for name, value in values}
        image = torch.empty_like(x, device="meta").requires_grad_()
        hooks: AbstractContextManager[object] = LayerHooks(network, sorted(names), visit, dims)
        if functions:
            hooks = LayerCalls(network, dims).visited(visit)
        with restored(network), torch.enable_grad(), hooks:
            output = run(torch.func.functional_call(network, state, (image.clone(),)))
    except (NeuroXAIError, *NETWORK_ERRORS, AttributeError, TypeError):
        return Traced()
    source = get_gradient_edge(image).node
    layers = {label: cell_positions(edge, source, dims) for label, edge in edges.items()}
    of_output = None
    if output.dim() == x.dim() and output.requires_grad:
        of_output = cell_positions(get_gradient_edge(output), source, dims)
    known = {label: each for label, each in layers.items() if each is not None}
    return Traced(of_output, tuple(output.shape), known)
