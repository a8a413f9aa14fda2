"""The layer that Grad-CAM looks at by default: what the pass itself says of every convolution."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.errors import NETWORK_ERRORS, LayerError, NeuroXAIError
from neuroxai.core.footprint import middle_part
from neuroxai.core.layers import Layer, LayerHooks, is_convolution, takes_mean_away
from neuroxai.core.layout import OnGrid


@dataclass(frozen=True)
class Ways:
    """What becomes of the layers that ran.

    Attributes
    ----------
    used
        Labels of those that the output depends on.
    last
        Labels of those from which the output is reached through no other layer.
    """

    used: Collection[str]
    last: Collection[str]


def ways_to(output: Tensor, nodes: Mapping[str, Any]) -> Ways | None:
    """Follow an output's graph back to the layers; None where it has none.

    Parameters
    ----------
    output
        What counts of a network's answer, with its graph.
    nodes
        By label, the node of the graph that made a layer's output.

    Examples
    --------
    >>> x = torch.ones(3, requires_grad=True)
    >>> first, beside = x * 2, x * 3
    >>> then = first + 1
    >>> nodes = {"a": first.grad_fn, "b": beside.grad_fn, "c": then.grad_fn}
    >>> ways_to(then.exp(), nodes)
    Ways(used=['c', 'a'], last=['c'])
    """
    if output.grad_fn is None:
        return None
    labels = {node: label for label, node in nodes.items()}
    last = [labels[node] for node in _back_from(output.grad_fn, labels) if node in labels]
    used = [labels[node] for node in _back_from(output.grad_fn, ()) if node in labels]
    return Ways(used, last)


def _back_from(end: Any, stops: Collection[Any]) -> Iterator[Any]:
    """Yield the nodes of a graph from its end backwards, each once, none behind the stops."""
    waiting, seen = [end], {end}
    while waiting:
        node = waiting.pop()
        yield node
        if node in stops:
            continue
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)


def auto_layer(
    network: nn.Module, ran: Sequence[Layer], *, classifier: bool, ways: Ways | None = None
) -> Layer:
    """Return the layer that Grad-CAM looks at by default.

    It is a classifier's last convolution with spatial extent, a segmenter's last convolution
    before its output convolution; or, where an instance or group norm follows that one, the norm:
    in front of it there are no weights to be had. Only those count that the output depends on;
    and all from which it is reached without another one are output convolutions.

    Parameters
    ----------
    network
        The network.
    ran
        Its convolutions and norms that ran, in the order data flows; others may be among them.
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
    modules = [network.get_submodule(layer.name.partition("#")[0]) for layer in ran]
    places = [place for place, module in enumerate(modules) if is_convolution(module)]
    every = places
    if ways is not None:
        places = [place for place in places if ran[place].name in ways.used]
    count = len(places)
    if classifier:
        places = [place for place in places if prod(ran[place].shape[1:]) > 1]
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
    end = next((other for other in every if other > place), len(ran))
    behind = (n for n in range(place + 1, end) if takes_mean_away(modules[n]))
    return ran[next(behind, place)]


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
    with torch.no_grad(), LayerHooks(network, [], whole.meet, x.dim() - 2):
        output = run(x)
    ways: Ways | None = None
    try:
        with torch.enable_grad(), LayerHooks(network, [], part.meet, x.dim() - 2):
            ways = ways_to(run(middle_part(x, 1 / 8)), part.nodes)
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
