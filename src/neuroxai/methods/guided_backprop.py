"""Guided backpropagation."""

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
class GuidedBackprop(Method):
    r"""The gradient with only positive signals of active units let back (arXiv:1412.6806).

    .. math:: B_i^l = (F_i^l > 0) \cdot (B_i^{l+1} > 0) \cdot B_i^{l+1}

    at every rectifier (Springenberg et al. 2015; eqs. 2-3 of the paper), of shape ``(B, C, *S)``.
    Leaky, parametric and smooth activations, for which the paper has no rule, let a positive
    gradient pass where their output is positive, and the explanation says so.

    Raises
    ------
    MethodError
        If the network has no rectifier: the map would be the plain gradient.

    Examples
    --------
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

    @property
    def asks(self) -> Asks:
        """The guided gradient."""
        return Asks(guided=True)

    @property
    def gradients(self) -> int:
        """One."""
        return 1

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the guided gradient."""
        values = probe.guided_gradient(x)
        return Attribution(values, notes=extension_notes(probe))


def extension_notes(probe: Probe) -> tuple[str, ...]:
    """Say which activations the guided rule was extended to."""
    if not probe.rectifiers:
        return ()
    return (
        "the guided rule has no published form for "
        + ", ".join(probe.rectifiers)
        + ": a positive gradient passes where the activation's output is positive",
    )
