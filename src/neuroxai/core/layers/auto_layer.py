"""The default layer of class activation maps, chosen from the graph of the pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.backward_graph import nodes_behind
from neuroxai.core.engine.footprint import center_crop
from neuroxai.core.engine.network_state import restored
from neuroxai.core.errors import NETWORK_ERRORS, LayerError, NeuroXAIError
from neuroxai.core.layers.labels import AUTO, call_label, input_label, is_input, module_name
from neuroxai.core.layers.layers import (
    Layer,
    LayerHooks,
    give_grid,
    is_convolution,
    subtracts_mean,
)
from neuroxai.core.layers.layout import Rearrange, is_block
from neuroxai.core.layers.token_blocks import LastBlocks, Recorded, last_blocks, matters


@dataclass(frozen=True)
class OutputPaths:
    """Paths from the convolutions that ran to an output.

    Attributes
    ----------
    used
        Labels of the convolutions that the output depends on.
    last, before_last
        Of those, the ones from which a path to the output passes no other convolution, or none but
        the last ones.
    last_junctions, before_junctions
        Labels of the larger modules whose output is on all paths from these.
    before_inputs
        Label of the input of each of the last ones to the number of convolutions before it.
    """

    used: Collection[str]
    last: Collection[str]
    before_last: Collection[str]
    last_junctions: Collection[str]
    before_junctions: Collection[str]
    before_inputs: Mapping[str, int]


def output_paths(
    output: Tensor, network: nn.Module, nodes: Mapping[str, Any]
) -> OutputPaths | None:
    """Return the paths from the layers to an output; None if it has no graph.

    Parameters
    ----------
    output
        The selected output of the network, with its graph.
    network
        The network.
    nodes
        Label of a layer to the node of the graph that made its output.

    Examples
    --------
    >>> network = nn.ModuleDict({"first": nn.Conv1d(1, 1, 1), "then": nn.Conv1d(1, 1, 1)})
    >>> low = network["first"](torch.ones(1, 1, 3))
    >>> high = network["then"](low)
    >>> nodes = {"first": low.grad_fn, "then": high.grad_fn}
    >>> output_paths(high.exp(), network, nodes).last
    ['then']
    >>> output_paths(low + high, network, nodes).last
    ['then', 'first']
    """
    end = output.grad_fn
    if end is None:
        return None
    inputs = {label: node for label, node in nodes.items() if is_input(label)}
    nodes = {label: node for label, node in nodes.items() if label not in inputs}
    convolution = {label: is_convolution(module_of(network, label)) for label in nodes}
    labels = {node: label for label, node in nodes.items() if convolution[label]}
    last = [labels[node] for node in nodes_behind(end, labels) if node in labels]
    others = {node for node, label in labels.items() if label not in last}
    before = [labels[node] for node in nodes_behind(end, others) if node in others]
    reached = {*nodes_behind(end)}
    used = [label for node, label in labels.items() if node in reached]

    def junctions(starts: Collection[str], beyond: Collection[str]) -> list[str]:
        """Return the modules on all paths from ``starts`` that contain none of ``beyond``."""
        if len(starts) < 2:
            return []
        wanted = {nodes[label] for label in starts}
        return [
            label
            for label, node in nodes.items()
            if not convolution[label]
            and node in reached
            and not any(other.startswith(f"{label.partition('#')[0]}.") for other in beyond)
            and wanted.isdisjoint({*nodes_behind(end, {node})} - {node})
        ]

    before_inputs = {
        name: len({*nodes_behind(inputs[name])} & {*labels})
        for name in map(input_label, last)
        if inputs.get(name) is not None
    }
    return OutputPaths(
        used, last, before, junctions(last, ()), junctions(before, last), before_inputs
    )


def auto_layer(
    network: nn.Module,
    ran: Sequence[Layer],
    *,
    classifier: bool,
    paths: OutputPaths | None = None,
    blocks: Callable[[], LastBlocks | None] = lambda: None,
    unplaced: Mapping[str, int] = MappingProxyType({}),
    dims: int = 2,
) -> Layer:
    """Return the default layer of class activation maps.

    It is the input of a segmenter's output convolution, whatever branches are joined there, or a
    classifier's last layer with spatial extent: a block of a transformer, or a convolution. If
    several convolutions of a classifier are
    in parallel, as in a residual or dense block, it is the module that joins them; if an instance
    or group norm follows, it is the norm, as the channel weights of a layer in front of one cancel.
    If a segmenter has several output convolutions with different inputs, it is the input with the
    most convolutions before it. Only convolutions that the output depends on count, and all from
    which it is reached through no other one are output convolutions.

    Parameters
    ----------
    network
        The network.
    ran
        The convolutions, their inputs, norms and larger modules that ran, in the order data flows;
        further layers are ignored.
    classifier
        Whether the output has no spatial axes.
    paths
        The paths to the output. If unknown, all convolutions count, and the last one of a segmenter
        is its output convolution.
    blocks
        Returns the last blocks of a transformer.
    unplaced
        Blocks whose tokens have an unknown grid, to the number of layers that ran before.
    dims
        The number of spatial axes of an image, 2 or 3.

    Raises
    ------
    LayerError
        If the network has no such layer, or it is a block whose tokens have an unknown grid.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise LayerError(
            "a TorchScript program does not run hooks on its layers, so it has no class activation "
            "maps: load the network's Python class or a program of torch.export, or use a gradient "
            "method"
        )
    if not classifier:
        try:
            return _output_input(network, ran, paths)
        except LayerError:
            found = blocks()
            if found is None:
                raise
            return found.chosen
    places = {layer.name: place for place, layer in enumerate(ran)}
    convolutions = _with_extent(network, ran, paths)
    last, found = max((places[each.name] for each in convolutions), default=-1), blocks()
    chosen: Layer | None = None
    if found is not None and places[found.last.name] > last:
        chosen, last = found.chosen, places[found.last.name]
    later = [name for name, before in unplaced.items() if before > last]
    if later:
        raise LayerError(
            f"the default layer is the block {later[-1]!r}, whose tokens have an unknown grid: "
            f"{give_grid(dims)}, or name a layer"
        )
    return chosen or _last_layer(network, ran, convolutions, paths)


def _output_input(network: nn.Module, ran: Sequence[Layer], paths: OutputPaths | None) -> Layer:
    """Return the input of a segmenter's output convolution."""
    convolutions = [
        layer.name
        for layer in ran
        if not is_input(layer.name) and is_convolution(module_of(network, layer.name))
    ]
    outputs = convolutions[-1:] if paths is None else paths.last
    before = {} if paths is None else paths.before_inputs
    inputs = {layer.name: layer for layer in ran if is_input(layer.name)}
    found = [inputs[name] for name in map(input_label, outputs) if name in inputs]
    if len(convolutions) < 2 or not found:
        raise LayerError(
            f"{len(convolutions)} convolution(s) ran, expected an output convolution and one "
            "before it: name a layer with layer="
        )
    places = {layer.name: place for place, layer in enumerate(ran)}
    return max(found, key=lambda layer: (before.get(layer.name, 0), places[layer.name]))


def _with_extent(
    network: nn.Module, ran: Sequence[Layer], paths: OutputPaths | None
) -> list[Layer]:
    """Return the convolutions with spatial extent that the output depends on."""
    return [
        layer
        for layer in ran
        if not is_input(layer.name)
        and is_convolution(module_of(network, layer.name))
        and (paths is None or layer.name in paths.used)
        and _has_extent(layer)
    ]


def _last_layer(
    network: nn.Module,
    ran: Sequence[Layer],
    convolutions: Sequence[Layer],
    paths: OutputPaths | None,
) -> Layer:
    """Return the last of a classifier's convolutions, their joint, or the norm that follows."""
    if not convolutions:
        raise LayerError("no convolution with spatial extent ran: name a layer with layer=")
    ran = [layer for layer in ran if not is_input(layer.name)]
    modules = [module_of(network, layer.name) for layer in ran]
    place = ran.index(convolutions[-1])
    if paths is not None:
        place = _junction(ran, {each.name for each in convolutions}, paths, default=place)
    following = next(
        (n for n in range(place + 1, len(ran)) if is_convolution(modules[n])), len(ran)
    )
    norms = (n for n in range(place + 1, following) if subtracts_mean(modules[n]))
    return ran[next(norms, place)]


def _junction(
    ran: Sequence[Layer], candidates: Collection[str], paths: OutputPaths, *, default: int
) -> int:
    """Return the place of the last module that joins parallel candidates."""
    parallel, joined = paths.last, paths.last_junctions
    if not {*candidates} & {*parallel}:  # behind them, a classifier's head may be a convolution
        parallel, joined = paths.before_last, paths.before_junctions
    if len({*candidates} & {*parallel}) < 2:
        return default
    places = [n for n, layer in enumerate(ran) if layer.name in joined and _has_extent(layer)]
    return places[-1] if places else default


def module_of(network: nn.Module, label: str) -> nn.Module:
    """Return the module of a layer's label."""
    return network.get_submodule(module_name(label))


def _has_extent(layer: Layer) -> bool:
    return prod(layer.shape[1:]) > 1


def layer_by_default(
    network: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor], requested: str = AUTO
) -> str:
    """Return the label of the default layer without a graph of the whole image.

    The paths to the output are taken from the graph of a small part of the image. If the network
    does not accept one, the order in which the layers ran decides; the last blocks of a transformer
    are tried one by one, with a graph from there to the output.

    Parameters
    ----------
    network
        The network.
    x
        An image ``(B, C, *S)``.
    run
        Runs a forward pass and returns the model output.
    requested
        The label of the default layer, which may give a grid.

    Raises
    ------
    LayerError
        See :func:`auto_layer`.
    """
    dims = x.dim() - 2
    whole, part = _Ran(), _Ran()
    hooks = LayerHooks(network, [requested], whole.visit, dims)
    # Both passes start from what the network held before: a cache of one size fits no other.
    with restored(network), torch.no_grad(), hooks:
        output = run(x)
    paths: OutputPaths | None = None
    found: LastBlocks | None = None
    try:
        on_part = LayerHooks(network, [AUTO], part.visit, dims)
        with restored(network), torch.enable_grad(), on_part:
            small = run(center_crop(x, 1 / 8))
            found = last_blocks(small, part.layers, part.recorded)
        paths = output_paths(small, network, part.nodes)
    except (NeuroXAIError, *NETWORK_ERRORS):
        pass

    def blocks() -> LastBlocks | None:
        if paths is not None:
            return found
        return _blocks_by_order(network, x, run, whole.layers, requested)

    if part.outputs != whole.outputs:
        paths = None
    chosen = auto_layer(
        network, whole.layers, classifier=output.dim() == 2, paths=paths, blocks=blocks,
        unplaced=hooks.unplaced, dims=dims,
    )  # fmt: skip
    return call_label(chosen.name, [layer.name for layer in whole.layers])


def _blocks_by_order(
    network: nn.Module,
    x: Tensor,
    run: Callable[[Tensor], Tensor],
    ran: Sequence[Layer],
    requested: str,
) -> LastBlocks | None:
    """Return the last blocks, by a graph that begins at each of them."""
    found = [each for each in ran if each.is_block and is_block(module_of(network, each.name))]
    for layer in reversed(found):
        behind = _Ran(start=layer.name)
        hooks = LayerHooks(network, [requested], behind.visit, x.dim() - 2)
        with restored(network), torch.enable_grad(), hooks:
            output = run(x)
        if output.grad_fn is not None and matters(output, behind.recorded[layer.name]):
            return LastBlocks(found[-1], layer)
    return LastBlocks(found[-1], found[-1]) if found else None


@dataclass
class _Ran:
    """The layers of a pass, and their outputs in its graph, which begins at ``start``."""

    layers: list[Layer] = field(default_factory=list)
    recorded: dict[str, Recorded] = field(default_factory=dict)
    start: str | None = None

    @property
    def nodes(self) -> dict[str, Any]:
        """The nodes of the graph that made the layers' outputs."""
        return {label: each.edge.node for label, each in self.recorded.items()}

    @property
    def outputs(self) -> list[tuple[str, bool]]:
        """The layers without inputs, which are visited if they have a graph."""
        return [(each.name, each.is_block) for each in self.layers if not is_input(each.name)]

    def visit(self, layer: Layer, output: Tensor, rearrange: Rearrange | None) -> Tensor | None:
        self.layers.append(layer)
        if not torch.is_grad_enabled() or self.start not in (None, layer.name):
            return None
        continued = output if output.requires_grad else output.detach().requires_grad_().clone()
        self.recorded[layer.name] = Recorded.of(continued, rearrange)
        return continued
