"""The layer that Grad-CAM looks at by default: what the pass itself says of every convolution."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.backward_graph import nodes_behind
from neuroxai.core.engine.footprint import center_crop
from neuroxai.core.errors import NETWORK_ERRORS, LayerError, NeuroXAIError
from neuroxai.core.layers.layers import AUTO, Layer, LayerHooks, is_convolution, takes_mean_away
from neuroxai.core.layers.layout import OnGrid


@dataclass(frozen=True)
class Ways:
    """What becomes of the convolutions that ran, on their way to an output.

    Attributes
    ----------
    used
        Labels of those that the output depends on.
    last, before_last
        Of those, the ones from which the output is reached through no other one, and through none
        but the last.
    meet_last, meet_before
        Labels of the larger modules through whose output all ways from these go.
    """

    used: Collection[str]
    last: Collection[str]
    before_last: Collection[str]
    meet_last: Collection[str]
    meet_before: Collection[str]


def ways_to(output: Tensor, network: nn.Module, nodes: Mapping[str, Any]) -> Ways | None:
    """Follow an output's graph back to the layers; None where it has none.

    Parameters
    ----------
    output
        What counts of a network's answer, with its graph.
    network
        Which gave it.
    nodes
        By label, the node of the graph that made a layer's output.

    Examples
    --------
    >>> network = nn.ModuleDict({"first": nn.Conv1d(1, 1, 1), "then": nn.Conv1d(1, 1, 1)})
    >>> low = network["first"](torch.ones(1, 1, 3))
    >>> high = network["then"](low)
    >>> nodes = {"first": low.grad_fn, "then": high.grad_fn}
    >>> ways_to(high.exp(), network, nodes).last, ways_to(low + high, network, nodes).last
    (['then'], ['then', 'first'])
    """
    end = output.grad_fn
    if end is None:
        return None
    made = {label: is_convolution(module_of(network, label)) for label in nodes}
    labels = {node: label for label, node in nodes.items() if made[label]}
    last = [labels[node] for node in nodes_behind(end, labels) if node in labels]
    further = {node for node, label in labels.items() if label not in last}
    before = [labels[node] for node in nodes_behind(end, further) if node in further]
    on_the_way = {*nodes_behind(end)}
    used = [label for node, label in labels.items() if node in on_the_way]

    def meet(ends: Collection[str], beyond: Collection[str]) -> list[str]:
        """Return through which modules all ways from ``ends`` go, before those ``beyond``."""
        if len(ends) < 2:
            return []
        wanted = {nodes[label] for label in ends}
        return [
            label
            for label, node in nodes.items()
            if not made[label]
            and node in on_the_way
            and not any(other.startswith(f"{label.partition('#')[0]}.") for other in beyond)
            and wanted.isdisjoint({*nodes_behind(end, {node})} - {node})
        ]

    return Ways(used, last, before, meet(last, ()), meet(before, last))


def auto_layer(
    network: nn.Module, ran: Sequence[Layer], *, classifier: bool, ways: Ways | None = None
) -> Layer:
    """Return the layer that Grad-CAM looks at by default.

    It is a classifier's last convolution with spatial extent, a segmenter's last convolution
    before its output convolution; where there are several side by side, as in a residual block or
    a dense one, the module in which their ways meet; or, where an instance or group norm follows,
    the norm: in front of it there are no weights to be had. Only those count that the output
    depends on; and all from which it is reached without another one are output convolutions.

    Parameters
    ----------
    network
        The network.
    ran
        Its convolutions, norms and larger modules that ran, in the order data flows; others may be
        among them.
    classifier
        Whether its output has no space.
    ways
        What becomes of them. Where nobody knows, all of them count, and the last of a segmenter's
        is its output.

    Raises
    ------
    LayerError
        If the network has no such convolution.
    """
    modules = [module_of(network, layer.name) for layer in ran]
    places = [place for place, module in enumerate(modules) if is_convolution(module)]
    every = places
    if ways is not None:
        places = [place for place in places if ran[place].name in ways.used]
    count = len(places)
    if classifier:
        places = [place for place in places if _has_extent(ran[place])]
        if not places:
            raise LayerError("no convolution with spatial extent ran: name a layer with layer=")
    elif ways is None:
        places = places[:-1]
    else:
        places = [place for place in places if ran[place].name not in ways.last]
    if not places:
        raise LayerError(
            f"{count} convolution(s) ran, expected one before the output convolution: "
            "name a layer with layer="
        )
    place = places[-1]
    if ways is not None:
        # A classifier's head may be a convolution of one voxel: then it is those before it.
        among = {ran[other].name for other in places}
        beside, meet = ways.last, ways.meet_last
        if among.isdisjoint(beside):
            beside, meet = ways.before_last, ways.meet_before
        joints = [n for n, layer in enumerate(ran) if layer.name in meet and _has_extent(layer)]
        if len(among.intersection(beside)) > 1 and joints:
            place = joints[-1]
    end = next((other for other in every if other > place), len(ran))
    behind = (n for n in range(place + 1, end) if takes_mean_away(modules[n]))
    return ran[next(behind, place)]


def module_of(network: nn.Module, label: str) -> nn.Module:
    """Return the module of a layer's label."""
    return network.get_submodule(label.partition("#")[0])


def _has_extent(layer: Layer) -> bool:
    return prod(layer.shape[1:]) > 1


def layer_by_default(network: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor]) -> str:
    """Return the name of the layer that Grad-CAM looks at by default, and keep no graph of it all.

    What becomes of every layer is read off the graph of a small part of the image; where the
    network takes none, the order in which they ran has to do.

    Parameters
    ----------
    network
        The network.
    x
        An image ``(B, C, *S)``.
    run
        Takes a pass and returns the model output.

    Raises
    ------
    LayerError
        See :func:`auto_layer`.
    """
    whole, part = _Ran(), _Ran()
    with torch.no_grad(), LayerHooks(network, [AUTO], whole.meet, x.dim() - 2):
        output = run(x)
    ways: Ways | None = None
    try:
        with torch.enable_grad(), LayerHooks(network, [AUTO], part.meet, x.dim() - 2):
            ways = ways_to(run(center_crop(x, 1 / 8)), network, part.nodes)
    except (NeuroXAIError, *NETWORK_ERRORS):
        pass
    if [layer.name for layer in part.layers] != [layer.name for layer in whole.layers]:
        ways = None
    return auto_layer(network, whole.layers, classifier=output.dim() == 2, ways=ways).name


@dataclass
class _Ran:
    """The layers of a pass, and the nodes of its graph that made their outputs."""

    layers: list[Layer] = field(default_factory=list)
    nodes: dict[str, Any] = field(default_factory=dict)

    def meet(self, layer: Layer, output: Tensor, on_grid: OnGrid | None) -> Tensor | None:
        self.layers.append(layer)
        if not torch.is_grad_enabled():
            return None
        going_on = output if output.requires_grad else output.detach().requires_grad_().clone()
        self.nodes[layer.name] = going_on.grad_fn
        return going_on
