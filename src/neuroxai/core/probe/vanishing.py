"""Where a gradient becomes zero on its way to the input, and whether the target responds to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.backward_graph import nodes_behind
from neuroxai.core.errors import NETWORK_ERRORS, NeuroXAIError
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import channel_range, per_sample

_NOISE = 0.01
"""Noise that a target's response is tested with, as a fraction of each modality's range: small
enough to leave inactive units inactive, large enough to move some voxels over a rounding step."""

_ROUNDING = 1e-5
"""Change of a target, relative to its value, that rounding in single precision explains."""


def vanishing_points(probe: Probe, x: Tensor, sample: int) -> tuple[str, ...]:
    """Return the operations at which the gradient of a sample's target becomes exactly zero.

    Each is named as in torch's graph, with the innermost module that returned its result. Empty if
    none is found, or if the network is not run on the whole image at once.

    Parameters
    ----------
    probe
        The network and the target, at the explained point.
    x
        The explained point, ``(B, C, *S)``.
    sample
        The index of the sample.
    """
    if probe.describe() or probe.checkpointed:
        return ()
    names: dict[Any, str] = {}
    found: dict[str, None] = {}
    leaf = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad(), _named_nodes(probe.network, names):
            total = probe.target.score(probe.answer(leaf))[sample]
        if total.grad_fn is None:
            return ()
        with ExitStack() as stack:
            for node in nodes_behind(total.grad_fn):
                if node.next_functions:
                    handle = node.register_hook(_zero_hook(node, names, found))
                    stack.callback(handle.remove)
            torch.autograd.grad(total, [leaf], allow_unused=True)
    except (NeuroXAIError, *NETWORK_ERRORS):
        return ()
    return tuple(found)


def response(probe: Probe, x: Tensor, sample: int, channel: int | None = None) -> float:
    """Return the change of a sample's target under noise of 1 % of the range; 0 if it is rounding.

    Parameters
    ----------
    probe, x, sample
        As for :func:`vanishing_points`.
    channel
        The only channel of the input that gets noise; None for all.
    """
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    spread = channel_range(x)
    noise *= per_sample(_NOISE * torch.where(spread > 0, spread, 1), x)
    if channel is not None:
        noise[:, :channel] = 0
        noise[:, channel + 1 :] = 0
    before, after = probe.score(x)[sample], probe.score(x + noise)[sample]
    change = float((after - before).abs())
    return change if change > _ROUNDING * float(before.abs()) else 0.0


@contextmanager
def _named_nodes(network: nn.Module, names: dict[Any, str]) -> Iterator[None]:
    """Context manager that collects the nodes of the graph that modules return."""

    def hook(label: str) -> Callable[[nn.Module, Any, Any], None]:
        def visit(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                names.setdefault(output.grad_fn, label)  # inner modules return first

        return visit

    with ExitStack() as stack:
        for label, module in network.named_modules():
            if label and not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(hook(label)).remove)
        yield


def _zero_hook(
    node: Any, names: dict[Any, str], found: dict[str, None]
) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], None]:
    def hook(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
        arrived = any(each is not None and bool(each.any()) for each in outputs)
        passed = any(each is not None and bool(each.any()) for each in inputs)
        if arrived and not passed:
            operation = re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])
            module = names.get(node)
            found[f"{operation} (module {module})" if module else operation] = None

    return hook
