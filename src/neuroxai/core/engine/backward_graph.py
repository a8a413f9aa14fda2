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


def nodes_on_all_paths(end: Any, source: Any) -> set[Any]:
    """Return the nodes that every path from ``end`` backwards to ``source`` passes.

    Parameters
    ----------
    end, source
        Nodes of the graph; both belong to the result if there is a path.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(2, requires_grad=True).exp()
    >>> joined = x + x.relu()
    >>> found = nodes_on_all_paths(joined.sin().grad_fn, x.grad_fn)
    >>> sorted(node.name() for node in found)
    ['AddBackward0', 'ExpBackward0', 'SinBackward0']
    """
    consumers: dict[Any, list[Any]] = {}
    for node in nodes_behind(end, {source}):
        for before in () if node is source else {each for each, _ in node.next_functions}:
            if before is not None:
                consumers.setdefault(before, []).append(node)
    leading, waiting = {source}, [source]  # the nodes that lead to the source
    while waiting:
        for node in consumers.get(waiting.pop(), ()):
            if node not in leading:
                leading.add(node)
                waiting.append(node)
    if end not in leading:
        return set()
    # In topological order, a node is on all paths if it is the only one that is open.
    missing = {node: sum(each in leading for each in consumers.get(node, ())) for node in leading}
    found, opened, ready = set(), {end}, [end]
    while ready:
        node = ready.pop()
        if len(opened) == 1:
            found.add(node)
        opened.remove(node)
        for before in {each for each, _ in node.next_functions} & leading:
            if node is source:
                continue
            opened.add(before)
            missing[before] -= 1
            if not missing[before]:
                ready.append(before)
    return found
