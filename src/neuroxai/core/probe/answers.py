"""What is asked at one input, what is answered, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from neuroxai.core.errors import NeuroXAIError
from neuroxai.core.layers.layers import Layer


@dataclass(frozen=True)
class Asks:
    """What a method will ask at the explained point, so that passes can be shared."""

    gradient: bool = False
    guided: bool = False
    layers: frozenset[str] = frozenset()

    def __or__(self, other: Asks) -> Asks:
        return Asks(
            self.gradient or other.gradient,
            self.guided or other.guided,
            self.layers | other.layers,
        )


@dataclass
class Passes:
    """How many passes through the network were spent, in samples and in calls."""

    forward: int = 0
    backward: int = 0
    gradients: int = 0
    """Samples whose input gradient was computed; what a progress bar counts."""
    on_gradient: Callable[[int], None] = field(default=lambda samples: None, repr=False)


@dataclass(eq=False)
class Answers:
    """What is known about one input."""

    output: Tensor
    score: Tensor
    gradient: Tensor | None = None
    guided: Tensor | None = None
    maps: dict[str, tuple[Layer, Tensor]] = field(default_factory=dict)
    refused: dict[str, NeuroXAIError] = field(default_factory=dict)
    """What could not be answered, and why; raised only when it is asked for alone."""

    def take(self, more: Answers) -> None:
        """Add what another pass found out."""
        self.gradient = more.gradient if self.gradient is None else self.gradient
        self.guided = more.guided if self.guided is None else self.guided
        self.maps.update(more.maps)
        self.refused.update(more.refused)

    def input_gradient(self) -> Tensor:
        """Return the gradient, or raise why there is none."""
        if self.gradient is None:
            raise self.refused["gradient"]
        return self.gradient

    def guided_gradient(self) -> Tensor:
        """Return the guided gradient, or raise why there is none."""
        if self.guided is None:
            raise self.refused["guided"]
        return self.guided

    def layer_map(self, name: str) -> tuple[Layer, Tensor]:
        """Return a layer and its map, or raise why there is none."""
        if name not in self.maps:
            raise self.refused[name]
        return self.maps[name]
