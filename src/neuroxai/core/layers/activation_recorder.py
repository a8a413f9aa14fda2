"""Layer activations of one forward pass, reduced with their gradients during the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from neuroxai.core.engine.backward_graph import nodes_behind
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.layout import Rearrange
from neuroxai.core.layers.reduction import ChannelWeightedReduction, LayerReduction
from neuroxai.core.spatial import spatial_mean

Reductions = Mapping[str, Collection[LayerReduction]]
"""Layer label to the reductions of that layer."""

_MANY_SLABS = 32
"""First spatial axis from which a quarter of the slabs is enough to estimate a magnitude."""


def cancels(gradient: Tensor, mean: Tensor, computed: torch.dtype) -> Tensor | None:
    r"""Return whether a gradient ``(B, C, *S)`` sums to rounding noise in every channel.

    .. math:: \max_k \Big|\sum_v g^k_v\Big| \le \sqrt{\epsilon} \, \max_k \sum_v |g^k_v|

    This holds in front of a norm that subtracts the mean. On trained networks the ratio of the
    two sides was 0.1 to 1 for all other layers.

    Parameters
    ----------
    gradient, mean
        The gradient and its spatial mean ``(B, C)``.
    computed
        The dtype the gradient was computed in; it sets :math:`\epsilon`.

    Returns
    -------
    A boolean tensor on the gradient's device; None for a layer of a single cell.
    """
    if gradient[0, 0].numel() == 1:
        return None
    total = mean.abs().amax(dim=1)
    step = 4 if gradient.shape[2] >= _MANY_SLABS else 1
    size = spatial_mean(gradient[:, :, ::step].abs()).amax(dim=1)
    noise = total <= sqrt(torch.finfo(computed).eps) * size
    return (noise | (size == 0)).all() & (size > 0).any()


def no_gradient_error(label: str) -> LayerError:
    """Return the error for a layer that ran without recording gradients."""
    return LayerError(
        f"layer {label!r} runs without gradients, under torch.no_grad() or in a checkpoint with "
        "use_reentrant=True: run it with gradients (use_reentrant=False), or name another layer"
    )


def differentiate(
    total: Tensor,
    ends: Sequence[Tensor],
    start: Tensor | None = None,
    *,
    retain_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``total``, None where it does not depend on a tensor.

    ``start`` is what the backward pass starts from if ``total`` is not a scalar.

    Raises
    ------
    MethodError
        If the network uses reentrant checkpoints, which give no gradients of chosen tensors.
    """
    try:
        return torch.autograd.grad(total, ends, start, retain_graph=retain_graph, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise MethodError(
            "the network runs blocks in torch.utils.checkpoint with use_reentrant=True, which "
            "gives no gradients of an input: set use_reentrant=False, or run the blocks as they are"
        ) from error


def _with_all_reached(activations: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return ``inputs``, and activations such that a backward pass to them reaches all others.

    Autograd computes only what the requested gradients need. A leaf is requested, and so is an
    activation that depends on no other end, as behind a part that is detached from the input.
    """
    ends = [*inputs, *(activation for activation in activations if activation.is_leaf)]
    reached: set[Any] = {get_gradient_edge(end).node for end in ends}
    for activation in activations:
        if activation.is_leaf or not activation.requires_grad:
            continue
        if reached.isdisjoint(nodes_behind(activation.grad_fn, reached)):
            ends.append(activation)
        reached.add(activation.grad_fn)  # the search from later activations stops here
    return ends


class ActivationRecorder:
    """The activations of some layers in one forward pass.

    Parameters
    ----------
    copied
        Labels of layers whose output a later layer overwrites in place; the network continues
        with a copy.

    Attributes
    ----------
    layers
        The recorded layers by label, in the order the data flows.
    without_gradients
        Labels of recorded layers that ran without gradients; whether the target depends on them
        is unknown.
    cancelled
        Labels of layers whose gradient summed to rounding noise in the last backward pass, found
        for channel-weighted reductions alone.
    """

    def __init__(self, copied: Collection[str] = ()) -> None:
        self.layers: dict[str, Layer] = {}
        self.without_gradients: set[str] = set()
        self.cancelled: set[str] = set()
        self._rearrangements: dict[str, Rearrange] = {}
        self._copied = copied
        self._recorded: dict[str, tuple[Tensor, int]] = {}
        self._noise: dict[str, Tensor] = {}

    def record(
        self, layer: Layer, output: Tensor, rearrange: Rearrange | None = None
    ) -> Tensor | None:
        """Record a layer's output; return the tensor the network continues with, if another.

        ``rearrange`` rearranges values that are not ``(B, C, *S)``.
        """
        continued: Tensor | None = None
        activation = output
        if not output.requires_grad:
            # No gradient is requested before this layer: the graph starts here.
            activation = output.detach().requires_grad_()
            continued = activation.clone()
        elif layer.name in self._copied:
            continued = output.clone()
        self.layers[layer.name] = layer
        if not torch.is_grad_enabled():
            self.without_gradients.add(layer.name)
        self._recorded[layer.name] = (activation, activation._version)
        if rearrange is not None:
            self._rearrangements[layer.name] = rearrange
        return continued

    def activation(self, label: str) -> Tensor:
        """Return a recorded activation as ``(B, C, *S)``."""
        values = self._recorded[label][0].detach()
        rearrange = self._rearrangements.get(label)
        return values if rearrange is None else rearrange(values)

    def keep_only(self, labels: Collection[str]) -> None:
        """Release all other layers."""
        self.layers = {label: self.layers[label] for label in self.layers if label in labels}
        self._recorded = {label: self._recorded[label] for label in self.layers}

    def overwritten(self) -> set[str]:
        """Return the layers whose recorded output was overwritten in place since."""
        return {
            label
            for label, (values, version) in self._recorded.items()
            if values._version != version
        }

    def backward(
        self,
        total: Tensor,
        inputs: Sequence[Tensor],
        reductions: Reductions,
        *,
        retain_graph: bool = False,
    ) -> tuple[tuple[Tensor | None, ...], dict[str, dict[LayerReduction, Tensor]]]:
        """Differentiate ``total``; return the gradients of ``inputs`` and the reduced layers.

        Each gradient is reduced as it arrives and released, so the gradients of all layers are
        never in memory together. A layer that ``total`` does not depend on is left out.
        """
        reduced: dict[str, dict[LayerReduction, Tensor]] = {}
        self._noise.clear()
        handles = [
            activation.register_hook(
                self._reduction(label, activation, reductions.get(label, ()), reduced)
            )
            for label, (activation, _) in self._recorded.items()
        ]
        ends = _with_all_reached([activation for activation, _ in self._recorded.values()], inputs)
        try:
            gradients = differentiate(total, ends, retain_graph=retain_graph)
        finally:
            for handle in handles:
                handle.remove()
        # One transfer for all layers: each would wait for the device.
        noise = torch.stack([*self._noise.values()]).tolist() if self._noise else []
        self.cancelled = {label for label, true in zip(self._noise, noise, strict=True) if true}
        return gradients[: len(inputs)], reduced

    def _reduction(
        self,
        label: str,
        activation: Tensor,
        reductions: Collection[LayerReduction],
        reduced: dict[str, dict[LayerReduction, Tensor]],
    ) -> Callable[[Tensor], None]:
        values = activation.detach()
        rearrange = self._rearrangements.get(label)

        def hook(gradient: Tensor | None) -> None:
            if gradient is None:  # from a layer without a derivative
                return
            with torch.no_grad():
                single = torch.promote_types(gradient.dtype, torch.float32)
                a, g = values, gradient
                if rearrange is not None:
                    a, g = rearrange(a), rearrange(g)
                a, g = a.to(single), g.to(single)
                maps = reduced[label] = {}
                for reduction in reductions:
                    if not isinstance(reduction, ChannelWeightedReduction):
                        maps[reduction] = reduction.reduce(a, g)
                        continue
                    weights = reduction.weights(a, g)
                    maps[reduction] = reduction.combine(a, weights)
                    noise = cancels(g, weights, gradient.dtype)
                    if noise is not None:
                        self._noise[label] = noise

        return hook
