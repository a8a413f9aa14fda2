"""Guided backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from neuroxai.core.rules.backward_rule import BackwardRule
from neuroxai.core.rules.guided import GUIDED
from neuroxai.methods.input_gradient import InputGradientMethod


@dataclass(frozen=True)
class GuidedBackprop(InputGradientMethod):
    r"""The gradient with only positive signals of active units passed back (arXiv:1412.6806).

    .. math:: B_i^l = (F_i^l > 0) \cdot (B_i^{l+1} > 0) \cdot B_i^{l+1}

    at every rectifier (Springenberg et al. 2015; eqs. 2-3 of the paper), of shape ``(B, C, *S)``.
    No rule was published for leaky, parametric and smooth activations f. There a positive gradient
    passes where the activation's *input* x is positive, times the derivative,
    :math:`f'(x) \cdot (x > 0) \cdot (B > 0) \cdot B`, and a note names them. The input's sign
    decides, because with a negative slope the output of an inactive unit is positive.

    Raises
    ------
    MethodError
        If the network has no rectifier, or activations that the rule cannot reach: in TorchScript
        modules, in custom ``torch.autograd.Function`` classes, or written as a selection by sign
        other than ReLU.

    Examples
    --------
    >>> import torch
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU())
    >>> x = torch.ones(1, 1, 2, 5)
    >>> GuidedBackprop().explain(WholeVolume(network, Class(0)), x).values.shape
    torch.Size([1, 1, 2, 5])
    """

    name: ClassVar[str] = "guided_backprop"
    title: ClassVar[str] = "Guided backpropagation"
    citation: ClassVar[str] = "arXiv:1412.6806"
    rule: ClassVar[BackwardRule] = GUIDED
