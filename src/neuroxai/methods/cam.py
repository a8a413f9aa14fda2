"""CAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuroxai.core.errors import MethodError
from neuroxai.core.layers.labels import is_auto, is_input, module_name
from neuroxai.core.layers.layers import Layer, is_convolution
from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS, LayerReduction, weighted_sum
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import per_sample, spatial_mean
from neuroxai.methods.class_activation import ClassActivationMethod

_EQUAL = 1e-3
"""Relative difference between the weights of the head and those of the gradient that rounding in
single precision explains."""


@dataclass(frozen=True)
class HeadWeights(LayerReduction):
    r"""The channels weighted by given numbers, :math:`\sum_k w_k A^k`, one row per sample."""

    rows: tuple[tuple[float, ...], ...]

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the map ``(B, 1, *S)``."""
        return weighted_sum(activation, activation.new_tensor(self.rows))


@dataclass(frozen=True)
class _GradientSpread(LayerReduction):
    """Largest difference of a cell's gradient from the mean over cells, relative to the largest."""

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        mean = per_sample(spatial_mean(gradient), gradient)
        largest = gradient.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
        spread = (gradient - mean).abs().amax(dim=1, keepdim=True)
        return spread / per_sample(largest, gradient)


@dataclass(frozen=True)
class CAM(ClassActivationMethod):
    r"""The activations before the head, weighted by the head's own weights (arXiv:1512.04150).

    .. math:: M_c = \sum_k w^c_k A^k

    (Zhou et al. 2016), interpolated linearly to the input's grid, of shape ``(B, 1, *S)``, signed.
    :math:`w^c` is the row of class c in the linear layer behind a global average pooling, or in the
    1×1 output convolution of a segmenter. The mean of the map over the layer's cells is the class's
    logit but for the head's bias. It needs no gradient; one is taken to check that the head is the
    only thing between the layer and the answer. A target that combines several classes has their
    maps combined, each weighted by the derivative of the target with respect to its logit.

    Behind a segmenter's output convolution the map is the map of logits itself: it shows the answer
    and does not explain it.

    Parameters
    ----------
    layer
        The layer before the head; ``auto`` finds it.

    Raises
    ------
    MethodError
        If the network does not end in a global average pooling and one linear layer, or in a 1×1
        output convolution. A sliding window is refused too.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> last = nn.Conv2d(3, 2, 1, bias=False)
    >>> network, x = nn.Sequential(nn.Conv2d(1, 3, 1), last), torch.rand(1, 1, 6, 8)
    >>> explanation = CAM().explain(WholeVolume(network, Class(0)), x)
    >>> bool(abs(explanation.values.mean() - explanation.score[0]) < 1e-6)
    True
    """

    name: ClassVar[str] = "cam"
    title: ClassVar[str] = "CAM"
    on_request: ClassVar[bool] = True
    units: ClassVar[str] = "logit; its mean over the layer is the class's logit without the bias"
    citation: ClassVar[str] = "arXiv:1512.04150"
    reduction: ClassVar[LayerReduction] = MEAN_GRADIENT_WEIGHTS

    def layer_values(self, probe: Probe, x: Tensor) -> tuple[Layer, Tensor]:
        """Return the layer and its map, if the head's weights are those that the gradient finds."""
        name = self.layer
        slopes = _output_slopes(probe)
        if is_auto(name) and probe.output().dim() == 2:
            name = _before_pooling(probe, x, slopes.shape[1]) or name
        layer, found = probe.layer_map(x, name, self.reduction)
        for head in _heads(probe.network, layer, slopes.shape[1]):
            rows = tuple(tuple(row) for row in (slopes @ head.to(slopes)).tolist())
            values = probe.layer_map(x, layer.name, HeadWeights(rows))[1]
            if _is_equal(values, prod(layer.shape[1:]) * found) and self._is_pooled(
                probe, x, layer
            ):
                return layer, values
        raise MethodError(
            f"{self.name} is void on this network: {type(probe.network).__name__} does not end in "
            "a global average pooling and one linear layer, or in a 1x1 output convolution, "
            f"directly after layer {layer.name}; use grad_cam"
        )

    def _is_pooled(self, probe: Probe, x: Tensor, layer: Layer) -> bool:
        """Return whether every cell of a classifier's layer counts alike, as in a mean."""
        if probe.output().dim() > 2:
            return True
        spread = probe.layer_map(x, layer.name, _GradientSpread())[1]
        return not bool((spread > _EQUAL).any())

    def zero_reason(self, probe: Probe, x: Tensor, sample: int) -> str:
        """Return that the units or the weights are zero."""
        return (
            "the map is exactly zero because every unit before the head, or its weight for the "
            "target, is zero on this image"
        )


def _output_slopes(probe: Probe) -> Tensor:
    """Return the derivative of the target with respect to the logits ``(B, K)``, over all cells."""
    with torch.enable_grad():
        output = probe.output().detach().requires_grad_()
        (slopes,) = torch.autograd.grad(probe.target.score(output).sum(), output)
    return slopes.flatten(2).sum(dim=2) if slopes.dim() > 2 else slopes


def _heads(network: nn.Module, layer: Layer, classes: int) -> Iterator[Tensor]:
    """Yield the weights ``(K, C)`` of layers that may be the head behind a layer."""
    for name, module in network.named_modules():
        if is_input(layer.name) and name != module_name(layer.name):
            continue
        weight = getattr(module, "weight", None)
        if not (isinstance(weight, Tensor) and _may_be_head(module)):
            continue
        if weight.shape[:2] == (classes, layer.shape[0]) and weight[0, 0].numel() == 1:
            yield weight.detach().flatten(1)


def _may_be_head(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_convolution(module)


def _before_pooling(probe: Probe, x: Tensor, classes: int) -> str | None:
    """Return the last module that gives a head's channels with spatial extent; None if none."""
    weights = [each.weight for each in probe.network.modules() if _may_be_head(each)]
    widths = {
        each.shape[1] for each in weights if isinstance(each, Tensor) and each.shape[0] == classes
    }
    last: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def visit(module: nn.Module, inputs: Any, output: Any) -> None:
            spatial = isinstance(output, Tensor) and output.dim() == x.dim()
            if spatial and output.shape[1] in widths and prod(output.shape[2:]) > 1:
                last.append(name)

        return visit

    with ExitStack() as stack:
        for name, module in probe.network.named_modules():
            if name:
                stack.callback(module.register_forward_hook(hook(name)).remove)
        probe.run(x)
    return last[-1] if last else None


def _is_equal(one: Tensor, other: Tensor) -> bool:
    # Written so that NaN counts as equal: the method's check of its result reports it.
    return not bool((one - other).abs().max() > _EQUAL * one.abs().max())
