"""Methods whose map is one input gradient under a backward rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient, Request
from neuroxai.core.rules.backward_rule import BackwardRule
from neuroxai.methods.base import Method


@dataclass(frozen=True)
class InputGradientMethod(Method):
    """A method whose map is the gradient ``(B, C, *S)`` under a backward rule.

    A subclass names the rule, which may be defined next to it.
    """

    rule: ClassVar[BackwardRule]

    @property
    def requests(self) -> frozenset[Request]:
        """The gradient under the rule."""
        return frozenset([InputGradient(self.rule)])

    @property
    def gradients(self) -> int:
        """One."""
        return 1

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the gradient."""
        return Attribution(probe.gradient(x, self.rule), notes=probe.notes(self.rule))
