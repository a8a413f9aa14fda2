"""Grad-CAM++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.layers.reduction import LayerReduction, weighted_sum
from neuroxai.core.spatial import per_sample
from neuroxai.methods.class_activation import ClassActivationMethod


@dataclass(frozen=True)
class PlusPlusWeights(LayerReduction):
    r"""The signed class activation map with the weights of Grad-CAM++.

    With the gradient g and the activation A of channel k,

    .. math:: \alpha_v = \frac{g_v^2}{2 g_v^2 + g_v^3 \sum_u A_u}, \quad
              w = \frac{\sum_v \alpha_v \, \mathrm{ReLU}(g_v)}{\sum_{v: g_v > 0} \alpha_v}
    """

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the map ``(B, 1, *S)``."""
        total = per_sample(activation.flatten(2).sum(dim=2), activation)
        denominator = gradient.square() * (2 + gradient * total)
        # Both fallbacks to one are those of the authors' code.
        share = gradient.square() / torch.where(denominator == 0, 1, denominator)
        share = torch.where(gradient > 0, share, 0)
        sum_of_shares = share.flatten(2).sum(dim=2)
        weights = (share * gradient).flatten(2).sum(dim=2)
        weights = weights / torch.where(sum_of_shares == 0, 1, sum_of_shares)
        return weighted_sum(activation, weights)


@dataclass(frozen=True)
class GradCAMPlusPlus(ClassActivationMethod):
    r"""A layer's activations weighted by a weighted mean of positive gradients (arXiv:1710.11063).

    .. math:: \mathrm{ReLU}\Big(\sum_k w_k A^k\Big), \quad
              w_k = \sum_v \alpha^k_v \, \mathrm{ReLU}(g^k_v), \quad
              \alpha^k_v = \frac{(g^k_v)^2}{2 (g^k_v)^2 + (g^k_v)^3 \sum_u A^k_u}

    with :math:`g^k_v = \partial S / \partial A^k_v` (Chattopadhyay et al. 2018), interpolated
    linearly to the input's grid, of shape ``(B, 1, *S)``, never negative. The paper has derivatives
    of second and third order of :math:`Y`; this is the closed form of the authors' code, where
    :math:`Y = e^S` and the second derivative of S is zero, as in a ReLU network. As in their code,
    α is divided by its sum over the cells with a positive gradient, which the paper does not print.
    The common factor :math:`e^S` is left out: it overflows and changes no ratio within a map.

    α depends on the magnitude of S, so that, unlike Grad-CAM, the map of twice the target is not
    twice the map. The weights are not linear in the gradient: a network that sees the image in
    windows is refused.

    Parameters
    ----------
    layer
        See :class:`~neuroxai.methods.class_activation.ClassActivationMethod`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(3, 2, 1))
    >>> x = torch.rand(1, 1, 6, 8)
    >>> explanation = GradCAMPlusPlus().explain(WholeVolume(network, Class(0)), x)
    >>> explanation.layer, tuple(explanation.values.shape)
    ('1:input', (1, 1, 6, 8))
    """

    name: ClassVar[str] = "grad_cam_plus_plus"
    title: ClassVar[str] = "Grad-CAM++"
    signed: ClassVar[bool] = False
    on_request: ClassVar[bool] = True
    units: ClassVar[str] = "arbitrary unit; activation times gradient"
    citation: ClassVar[str] = "arXiv:1710.11063"
    reduction: ClassVar[LayerReduction] = PlusPlusWeights()
