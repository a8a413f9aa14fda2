"""Vanilla gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution
from neuroxai.core.probe.answers import Asks
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.base import Method


@dataclass(frozen=True)
class VanillaGradient(Method):
    r"""The target's gradient with respect to the input (Simonyan et al. 2014, arXiv:1312.6034).

    .. math:: \frac{\partial S}{\partial x}

    of shape ``(B, C, *S)``, in units of the target per unit of the input. The paper's eq. 1 as
    printed is class-model visualization by regularized ascent; this map is its first-order term
    at the patient's own image, which is what the figures show.

    Examples
    --------
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

    @property
    def asks(self) -> Asks:
        """The plain gradient."""
        return Asks(gradient=True)

    @property
    def gradients(self) -> int:
        """One."""
        return 1

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the gradient."""
        return Attribution(probe.gradient(x))
