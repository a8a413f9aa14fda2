"""Layers held through one forward pass, and their gradients reduced while they arrive."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import sqrt

import torch
from torch import Tensor

from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.layout import OnGrid
from neuroxai.core.spatial import spatial_mean

Reducer = Callable[[Tensor, Tensor], Tensor]
"""Turns a layer's activation and gradient, both ``(B, C, *S)``, into what is kept of them."""

_MANY_SLABS = 32


def cam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Return the signed class activation map ``(B, 1, *S)`` of a layer.

    .. math:: \sum_k \Big(\frac{1}{N} \sum_v \frac{\partial S}{\partial A^k_v}\Big) A^k
    """
    return _weighted(activation, spatial_mean(gradient))


def _weighted(activation: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bc,bc...->b...", weights, activation).unsqueeze(1)


def cancels(gradient: Tensor, mean: Tensor, computed: torch.dtype) -> Tensor | None:
    r"""Whether a gradient ``(B, C, *S)`` adds up to nothing but rounding in every channel.

    .. math:: \max_k \Big|\sum_v g^k_v\Big| \le \sqrt{\epsilon} \, \max_k \sum_v |g^k_v|

    So it does in front of a norm that takes the mean away; on trained networks the two sides of
    other layers were never further apart than 1 to 10. Given its spatial ``mean`` ``(B, C)`` and
    what it was computed in; returns a truth on its device, None where there is but one voxel.
    """
    if gradient[0, 0].numel() == 1:
        return None
    total = mean.abs().amax(dim=1)
    # Orders of magnitude are told apart: of many slabs a quarter says enough of the size.
    step = 4 if gradient.shape[2] >= _MANY_SLABS else 1
    size = spatial_mean(gradient[:, :, ::step].abs()).amax(dim=1)
    noise = total <= sqrt(torch.finfo(computed).eps) * size
    return (noise | (size == 0)).all() & (size > 0).any()


def severed(label: str) -> LayerError:
    """Return why a layer that ran without gradients has no map."""
    return LayerError(
        f"layer {label!r} runs without gradients, under torch.no_grad() or in a checkpoint with "
        "use_reentrant=True: run it with gradients (use_reentrant=False), or name another layer"
    )


def differentiate(
    total: Tensor, ends: Sequence[Tensor], *, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``total``, None for what it does not depend on.

    Raises
    ------
    MethodError
        If the network checkpoints its blocks in a way that gives no gradients of chosen tensors.
    """
    try:
        return torch.autograd.grad(total, ends, retain_graph=retain_graph, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise MethodError(
            "the network runs blocks in torch.utils.checkpoint with use_reentrant=True, which "
            "gives no gradients of an input: set use_reentrant=False, or run the blocks as they are"
        ) from error


class Watch:
    """The activations of some layers in one forward pass.

    Parameters
    ----------
    copied
        Layers whose output a later one overwrites in place; the network goes on with a copy.

    Attributes
    ----------
    layers
        What is held, by label, in the order the data flows.
    severed
        Of those, the layers that ran without gradients: nothing is known of what depends on them.
    cancelled
        Of those, the layers whose gradient added up to nothing in a backward pass.
    """

    def __init__(self, copied: Collection[str] = ()) -> None:
        self.layers: dict[str, Layer] = {}
        self.severed: set[str] = set()
        self.cancelled: set[str] = set()
        self._layouts: dict[str, OnGrid] = {}
        self._copied = copied
        self._held: dict[str, tuple[Tensor, int]] = {}
        self._truths: dict[str, Tensor] = {}

    def hold(self, layer: Layer, output: Tensor, on_grid: OnGrid | None = None) -> Tensor | None:
        """Keep hold of a layer's output; return what shall go on in its place, if anything.

        ``on_grid`` lays the values out as ``(B, C, *S)`` where they are not.
        """
        passed_on: Tensor | None = None
        activation = output
        if not output.requires_grad:
            # Nothing before this layer is asked for: the graph begins here.
            activation = output.detach().requires_grad_()
            passed_on = activation.clone()
        elif layer.name in self._copied:
            passed_on = output.clone()
        self.layers[layer.name] = layer
        if not torch.is_grad_enabled():
            self.severed.add(layer.name)
        self._held[layer.name] = (activation, activation._version)
        if on_grid is not None:
            self._layouts[layer.name] = on_grid
        return passed_on

    def activation(self, label: str) -> Tensor:
        """Return a held layer's activation, laid out as ``(B, C, *S)``."""
        values = self._held[label][0].detach()
        on_grid = self._layouts.get(label)
        return values if on_grid is None else on_grid(values)

    def keep_only(self, labels: Collection[str]) -> None:
        """Let go of all other layers."""
        self.layers = {label: self.layers[label] for label in self.layers if label in labels}
        self._held = {label: self._held[label] for label in self.layers}

    def overwritten(self) -> set[str]:
        """Return the layers whose output was written over in place: hold copies, once more."""
        return {label for label, (values, seen) in self._held.items() if values._version != seen}

    def backward(
        self,
        total: Tensor,
        inputs: Sequence[Tensor],
        reduce: Reducer,
        *,
        retain_graph: bool = False,
    ) -> tuple[tuple[Tensor | None, ...], dict[str, Tensor]]:
        """Differentiate ``total``; return the gradients of ``inputs`` and every layer reduced.

        A layer's gradient is reduced when it arrives and let go, so that all layers' gradients
        never sit in memory together. A layer that ``total`` does not depend on is left out.
        """
        reduced: dict[str, Tensor] = {}
        self._truths.clear()
        handles = [
            activation.register_hook(self._reduction(label, activation, reduce, reduced))
            for label, (activation, _) in self._held.items()
        ]
        activations = [activation for activation, _ in self._held.values()]
        # A layer that nothing before it is asked of is a leaf; its gradient has to be asked for.
        leaves = [activation for activation in activations if activation.is_leaf]
        ends = [*inputs, *leaves] if inputs else leaves or activations
        try:
            gradients = differentiate(total, ends, retain_graph=retain_graph)
        finally:
            for handle in handles:
                handle.remove()
        # One look for all layers: each would wait for the device.
        truths = torch.stack([*self._truths.values()]).tolist() if self._truths else []
        self.cancelled = {label for label, true in zip(self._truths, truths, strict=True) if true}
        return gradients[: len(inputs)], reduced

    def _reduction(
        self, label: str, activation: Tensor, reduce: Reducer, reduced: dict[str, Tensor]
    ) -> Callable[[Tensor], None]:
        values = activation.detach()
        on_grid = self._layouts.get(label)

        def arrive(gradient: Tensor | None) -> None:
            if gradient is None:  # a layer without gradients gives none
                return
            with torch.no_grad():
                laid, slope = values, gradient
                if on_grid is not None:
                    laid, slope = on_grid(values), on_grid(gradient)
                single = torch.promote_types(slope.dtype, torch.float32)
                laid, slope = laid.to(single), slope.to(single)
                mean = spatial_mean(slope)
                reduced[label] = _weighted(laid, mean) if reduce is cam else reduce(laid, slope)
                truth = cancels(slope, mean, gradient.dtype)
                if truth is not None:
                    self._truths[label] = truth

        return arrive
