"""The rule of guided backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.rules.backward_rule import Call, GradientChange
from neuroxai.core.rules.rectifier_rule import RectifierRule
from neuroxai.core.rules.rectifiers import RELU, RELU6


@dataclass(frozen=True)
class Guided(RectifierRule):
    r"""Only positive gradients of active units pass back (arXiv:1412.6806).

    .. math:: B^l = f'(x) \cdot (x > 0) \cdot (B^{l+1} > 0) \cdot B^{l+1}

    at every activation function f with input x (Springenberg et al. 2015; eqs. 2-3 of the paper,
    where f is ReLU). The sign of the input decides for leaky, parametric and smooth activations
    too, for which no rule was published: with a negative slope, the output of an inactive unit is
    positive.
    """

    title: ClassVar[str] = "guided backpropagation"
    extension: ClassVar[str] = (
        "a positive gradient passes where the activation's input is positive, times the "
        "activation's derivative"
    )

    def at_activation(self, call: Call) -> GradientChange:
        """Return the guided gradient at an activation's input."""
        if call.activation in (RELU, RELU6):
            return _where_positive  # their own derivative is zero at inactive units
        active = call.input > 0
        return lambda gradient, own: torch.where(active & (gradient > 0), own, 0)


def _where_positive(gradient: Tensor, own: Tensor) -> Tensor:
    return torch.where(gradient > 0, own, 0)


GUIDED = Guided()
