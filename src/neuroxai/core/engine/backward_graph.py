"""The graph that autograd recorded in a forward pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any


def nodes_behind(end: Any, stops: Collection[Any] = ()) -> Iterator[Any]:
    """Yield the nodes of a graph from ``end`` backwards, each once.

    Parameters
    ----------
    end
        A ``grad_fn``; it is the first node yielded.
    stops
        Nodes whose predecessors are not followed.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> [node.name() for node in nodes_behind(x.exp().relu().grad_fn)]
    ['ReluBackward0', 'ExpBackward0', 'torch::autograd::AccumulateGrad']
    """
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
