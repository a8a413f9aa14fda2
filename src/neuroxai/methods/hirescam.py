"""HiResCAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroxai.core.layers.reduction import LayerReduction, PositionwiseReduction
from neuroxai.methods.class_activation import ClassActivationMethod


@dataclass(frozen=True)
class ActivationTimesGradient(PositionwiseReduction):
    r"""Activation times gradient, summed over the channels.

    .. math:: \sum_k \frac{\partial S}{\partial A^k} A^k
    """

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the signed map ``(B, 1, *S)``."""
        return (activation * gradient).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class HiResCAM(ClassActivationMethod):
    r"""A layer's activations times their own gradient, summed over the channels (arXiv:2011.08891).

    .. math:: \sum_k \frac{\partial S}{\partial A^k} \odot A^k

    (Draelos & Carin 2020), interpolated linearly to the input's grid, of shape ``(B, 1, *S)``. It
    is signed: where the target is linear in the layer, the map on the layer's own grid adds up to
    the target but for a constant. Unlike Grad-CAM it keeps the position of the gradient.

    Parameters
    ----------
    layer
        See :class:`~neuroxai.methods.class_activation.ClassActivationMethod`.

    Examples
    --------
    >>> import torch
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> last = torch.nn.Conv2d(3, 2, 1, bias=False)
    >>> network, x = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), last), torch.rand(1, 1, 6, 8)
    >>> explanation = HiResCAM().explain(WholeVolume(network, Class(0)), x)
    >>> bool(abs(explanation.values.sum() - explanation.score[0]) < 1e-6)
    True
    """

    name: ClassVar[str] = "hirescam"
    title: ClassVar[str] = "HiResCAM"
    units: ClassVar[str] = "target per cell of the layer; activation times gradient"
    citation: ClassVar[str] = "arXiv:2011.08891"
    reduction: ClassVar[LayerReduction] = ActivationTimesGradient()
