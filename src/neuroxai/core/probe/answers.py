"""What passes through a network return."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from neuroxai.core.errors import NeuroXAIError
from neuroxai.core.layers.layers import Layer
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request


@dataclass(frozen=True)
class Passes:
    """The number of passes through a network.

    Attributes
    ----------
    forward, backward
        Passes, whatever their batch size.
    gradients
        Samples whose input gradient was computed.
    """

    forward: int = 0
    backward: int = 0
    gradients: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(
            self.forward + other.forward,
            self.backward + other.backward,
            self.gradients + other.gradients,
        )


@dataclass(eq=False)
class Answers:
    """The answers to requests at one input.

    Attributes
    ----------
    output
        The model output, without a graph.
    score
        The target's value ``(B,)``.
    gradients
        Input gradients ``(B, C, *S)``.
    maps
        Layers and their maps ``(B, 1, *S_layer)``.
    refused
        The requests without an answer, and why.
    activations
        The activation functions that backward rules were applied to.
    """

    output: Tensor
    score: Tensor
    gradients: dict[InputGradient, Tensor] = field(default_factory=dict)
    maps: dict[LayerMap, tuple[Layer, Tensor]] = field(default_factory=dict)
    refused: dict[Request, NeuroXAIError] = field(default_factory=dict)
    activations: frozenset[str] = frozenset()

    def __contains__(self, request: Request) -> bool:
        return request in self.gradients or request in self.maps or request in self.refused

    def merge(self, other: Answers) -> None:
        """Add the answers of another pass at the same input."""
        self.gradients |= other.gradients
        self.maps |= other.maps
        self.refused |= other.refused
        self.activations |= other.activations

    def gradient(self, request: InputGradient) -> Tensor:
        """Return an input gradient, or raise the reason why there is none."""
        if request not in self.gradients:
            raise self.refused[request]
        return self.gradients[request]

    def layer_map(self, request: LayerMap) -> tuple[Layer, Tensor]:
        """Return a layer and its map, or raise the reason why there is none."""
        if request not in self.maps:
            raise self.refused[request]
        return self.maps[request]


@dataclass(frozen=True, eq=False)
class PassResult:
    """What one pass found.

    Attributes
    ----------
    answers
        The answers to its requests, one for each target.
    passes
        How many passes through the network it took.
    overwritten
        Labels of layers whose output is overwritten in place, of which later passes record a copy.
    """

    answers: tuple[Answers, ...]
    passes: Passes
    overwritten: frozenset[str] = frozenset()
