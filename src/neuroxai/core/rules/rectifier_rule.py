"""Backward rules for the rectifiers of a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import ClassVar

from torch import nn

from neuroxai.core.rules.backward_rule import BackwardRule, Call, GradientChange, Seen
from neuroxai.core.rules.rectifiers import CLAMP, RELU, RELU6, script_with_rectifier


class RectifierRule(BackwardRule):
    """A rule that changes the gradient at every activation function, published for ReLU.

    It is void on a network without activation functions, and on one with activations that cannot
    be reached: in TorchScript modules, in custom ``torch.autograd.Function`` classes, or written
    as a selection by sign other than ReLU. The map would partly be the plain gradient.
    """

    extension: ClassVar[str]
    """What the rule does at activations other than ReLU; the end of a sentence."""

    @abstractmethod
    def at_activation(self, call: Call) -> GradientChange:
        """Return how the gradient changes at an activation function."""

    def watch(self, call: Call) -> GradientChange | None:
        """Return the change at an activation function, None for any other call."""
        return None if call.activation is None else self.at_activation(call)

    def refusal(self, network: nn.Module, seen: Seen) -> str | None:
        """Return why the rule is void on a network."""
        void = f"{self.title} is void on this network"
        script = script_with_rectifier(network)
        if script is not None:
            return (
                f"{void}: the rectifiers inside {script or type(network).__name__!r}, a "
                "TorchScript module, cannot be reached; explain the network that it was made "
                "from, or use vanilla_gradient"
            )
        if seen.unreachable:
            return (
                f"{void}: {', '.join(seen.unreachable)} may be an activation that the rule cannot "
                "reach; write it with torch's activation functions, or use vanilla_gradient"
            )
        if not seen.activations:
            return (
                f"{void}: {type(network).__name__} has no rectifier (ReLU or the like), so "
                "the map would equal the plain gradient; use vanilla_gradient"
            )
        return None

    def notes(self, activations: Collection[str]) -> tuple[str, ...]:
        """Return a note on activations for which the rule was not published."""
        others = sorted(set(activations) - {RELU, RELU6, CLAMP})
        if not others:
            return ()
        return (f"{self.title} was not published for {', '.join(others)}: {self.extension}",)
