"""Input times gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient, Request
from neuroxai.methods.base import Method


@dataclass(frozen=True)
class InputXGradient(Method):
    r"""The gradient of the target times the input (arXiv:1605.01713).

    .. math:: x_i \, \frac{\partial S}{\partial x_i}

    (Shrikumar et al. 2016), of shape ``(B, C, *S)``. It is the first-order Taylor term of the
    change of the target from a zero image: on a ReLU network without biases it adds up to the
    target, otherwise to no known value. Where the input is zero, the map is zero, so after a
    z-score the mean intensity of the brain cannot receive evidence.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network, x = torch.nn.Conv2d(1, 2, 1, bias=False), torch.rand(1, 1, 2, 5)
    >>> explanation = InputXGradient().explain(WholeVolume(network, Class(0)), x)
    >>> bool(abs(explanation.values.sum() - explanation.score[0]) < 1e-6)
    True
    """

    name: ClassVar[str] = "input_x_gradient"
    title: ClassVar[str] = "Input × gradient"
    units: ClassVar[str] = "target per voxel; first-order term"
    citation: ClassVar[str] = "arXiv:1605.01713"

    @property
    def quantity(self) -> Quantity:
        """An amount: the map sums to the first-order change of the target."""
        return "amount"

    @property
    def requests(self) -> frozenset[Request]:
        """The plain gradient."""
        return frozenset([InputGradient()])

    @property
    def gradients(self) -> int:
        """One."""
        return 1

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the product."""
        return Attribution(x.detach() * probe.gradient(x))
