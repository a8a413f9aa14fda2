"""The last block of a transformer whose patch tokens matter, from the graph of the pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from neuroxai.core.engine.backward_graph import nodes_on_all_paths
from neuroxai.core.layers.labels import module_name
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.layout import Rearrange


@dataclass(frozen=True, eq=False)
class Recorded:
    """A layer's output in the graph of a pass.

    Attributes
    ----------
    edge
        Its place in the graph.
    rearrange
        How its values are put on the grid; None if they are ``(B, C, *S)``.
    """

    edge: GradientEdge
    rearrange: Rearrange | None

    @classmethod
    def of(cls, values: Tensor, rearrange: Rearrange | None) -> Recorded:
        """Return the place of a tensor that the network continues with."""
        return cls(get_gradient_edge(values), rearrange)


@dataclass(frozen=True)
class LastBlocks:
    """The last blocks of a transformer.

    Attributes
    ----------
    last
        The last block.
    chosen
        The last one whose cells the output depends on.
    """

    last: Layer
    chosen: Layer


def last_blocks(
    output: Tensor, ran: Sequence[Layer], recorded: Mapping[str, Recorded]
) -> LastBlocks | None:
    """Return the last block and the last one that matters; None if the network has no blocks.

    A block is a layer that maps cells to cells by linear layers, keeps their shape, and is passed
    by all paths from the first layer to the output: a transformer block or a mixer, but neither of
    the branches in it, unless the network has no other modules. A model that reads its class token
    alone takes nothing from the patch tokens of its last block: their gradient is zero, and it is
    the block before that matters. If no block has a gradient, as behind a saturated output, it is
    the last one.

    Parameters
    ----------
    output
        The selected output of the network, with its graph.
    ran
        The layers that ran, in the order data flows.
    recorded
        The layers' outputs by label, the first one first.
    """
    found = [*_blocks(output, ran, recorded)]
    if not found:
        return None
    mattering = (each for each in reversed(found) if matters(output, recorded[each.name]))
    return LastBlocks(found[-1], next(mattering, found[-1]))


def _blocks(
    output: Tensor, ran: Sequence[Layer], recorded: Mapping[str, Recorded]
) -> Iterator[Layer]:
    """Yield the blocks on all paths, without those that consist of several others."""
    blocks = [layer for layer in ran if layer.is_block and layer.name in recorded]
    if not blocks or output.grad_fn is None:
        return
    first = next(iter(recorded.values())).edge.node
    shared: set[Any] = nodes_on_all_paths(output.grad_fn, first)
    # A network without modules for its blocks has branches alone.
    blocks = [layer for layer in blocks if recorded[layer.name].edge.node in shared] or blocks
    names = [module_name(layer.name) for layer in blocks]
    for layer in blocks:
        inner = [name for name in names if name.startswith(f"{module_name(layer.name)}.")]
        outermost = {
            name for name in inner if not any(name.startswith(f"{other}.") for other in inner)
        }
        if len(outermost) < 2:
            yield layer


def matters(output: Tensor, layer: Recorded) -> bool:
    """Return whether the cells of a layer have a gradient of an output.

    The gradient is that of a random combination of all classes, so that the layer does not depend
    on the target.
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(output.shape, generator=generator).to(output)
    (gradient,) = torch.autograd.grad(
        output, [layer.edge], weights, retain_graph=True, materialize_grads=True
    )
    return bool((gradient if layer.rearrange is None else layer.rearrange(gradient)).any())
