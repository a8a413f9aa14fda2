"""LayerCAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroxai.core.layers.reduction import LayerReduction, PositionwiseReduction
from neuroxai.methods.class_activation import ClassActivationMethod


@dataclass(frozen=True)
class ActivationTimesPositiveGradient(PositionwiseReduction):
    r"""Activation times positive gradient, summed over the channels.

    .. math:: \sum_k \mathrm{ReLU}\Big(\frac{\partial S}{\partial A^k}\Big) A^k
    """

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the map ``(B, 1, *S)``, negative where activations are."""
        return (activation * gradient.clamp(min=0)).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class LayerCAM(ClassActivationMethod):
    r"""A layer's activations times their own positive gradient (doi:10.1109/TIP.2021.3089943).

    .. math:: \mathrm{ReLU}\Big(\sum_k \mathrm{ReLU}\Big(\frac{\partial S}{\partial A^k}\Big)
              \odot A^k\Big)

    (Jiang et al. 2021), interpolated linearly to the input's grid, of shape ``(B, 1, *S)``, never
    negative. Unlike Grad-CAM it keeps the position of the gradient, also in shallow layers.

    Parameters
    ----------
    layer
        See :class:`~neuroxai.methods.class_activation.ClassActivationMethod`.

    Examples
    --------
    >>> import torch
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(3, 2, 1))
    >>> explanation = LayerCAM().explain(WholeVolume(network, Class(0)), torch.rand(1, 1, 6, 8))
    >>> explanation.layer, tuple(explanation.values.shape)
    ('1:input', (1, 1, 6, 8))
    """

    name: ClassVar[str] = "layercam"
    title: ClassVar[str] = "LayerCAM"
    signed: ClassVar[bool] = False
    units: ClassVar[str] = "arbitrary unit; activation times gradient"
    citation: ClassVar[str] = "doi:10.1109/TIP.2021.3089943"
    reduction: ClassVar[LayerReduction] = ActivationTimesPositiveGradient()
