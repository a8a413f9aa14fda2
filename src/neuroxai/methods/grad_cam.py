"""Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS, LayerReduction
from neuroxai.methods.class_activation import ClassActivationMethod


@dataclass(frozen=True)
class GradCAM(ClassActivationMethod):
    r"""A layer's activations weighted by their mean gradient, rectified (arXiv:1610.02391).

    .. math:: \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big), \quad
              \alpha_k = \frac{1}{N} \sum_v \frac{\partial S}{\partial A^k_v}

    (Selvaraju et al. 2017; eqs. 9-10 of the paper), interpolated linearly to the input's grid, of
    shape ``(B, 1, *S)``, never negative. The weights are means over the whole image, so the map of
    a restricted target may show other places.

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
    >>> explanation = GradCAM().explain(WholeVolume(network, Class(0)), torch.rand(1, 1, 6, 8))
    >>> explanation.layer, tuple(explanation.values.shape)
    ('1:input', (1, 1, 6, 8))
    """

    name: ClassVar[str] = "grad_cam"
    title: ClassVar[str] = "Grad-CAM"
    signed: ClassVar[bool] = False
    units: ClassVar[str] = "arbitrary unit; activation times gradient"
    citation: ClassVar[str] = "arXiv:1610.02391"
    reduction: ClassVar[LayerReduction] = MEAN_GRADIENT_WEIGHTS
