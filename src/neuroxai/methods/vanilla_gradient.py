"""Vanilla gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from neuroxai.core.rules.backward_rule import PLAIN, BackwardRule
from neuroxai.methods.input_gradient import InputGradientMethod


@dataclass(frozen=True)
class VanillaGradient(InputGradientMethod):
    r"""The gradient of the target with respect to the input (arXiv:1312.6034).

    .. math:: \frac{\partial S}{\partial x}

    (Simonyan et al. 2014), of shape ``(B, C, *S)``, in units of the target per unit of the input.
    Eq. 1 of the paper as printed is class-model visualization by regularized gradient ascent; its
    figures show this map, the first-order term at the patient's own image.

    Examples
    --------
    >>> import torch
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Conv2d(1, 2, 1, bias=False)
    >>> x = torch.ones(1, 1, 2, 5)
    >>> values = VanillaGradient().explain(WholeVolume(network, Class(0)), x).values
    >>> torch.allclose(values.sum(), network.weight[0].sum())
    True
    """

    name: ClassVar[str] = "vanilla_gradient"
    title: ClassVar[str] = "Vanilla gradient"
    citation: ClassVar[str] = "arXiv:1312.6034"
    rule: ClassVar[BackwardRule] = PLAIN
