"""Everything a method may ask of a network, behind one small interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import prod

from torch import Tensor, nn

from neuroxai.core.layers import Layer, layer_grid
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target import BoundTarget, Outputs
from neuroxai.core.watch import Reducer

VOXELS_AT_ONCE = 2 * 96**3
"""How many voxels a batch of path nodes or noisy copies may hold."""


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


class Probe(ABC):
    """What the methods see of a network and a target.

    Attributes
    ----------
    network
        The network, never edited.
    outputs
        What its output channels mean.
    air
        What air looks like on the network's input scale, per modality, if known.
    passes
        What was spent so far.
    """

    network: nn.Module
    outputs: Outputs
    air: tuple[float, ...] | None
    passes: Passes

    @abstractmethod
    def at(self, x: Tensor, asks: Asks) -> AbstractContextManager[None]:
        """Make ``x`` ``(B, C, *S)`` the explained point; inside, the network is frozen.

        Everything in ``asks`` is answered from one forward pass. On leaving, the network is as it
        was found, after an exception too.
        """

    @property
    @abstractmethod
    def explained(self) -> Tensor | None:
        """The explained point, None outside :meth:`at`."""

    @abstractmethod
    def output(self) -> Tensor:
        """Return the model output at the explained point."""

    @property
    @abstractmethod
    def target(self) -> BoundTarget:
        """The target as it is fixed at the explained point."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """Return the target's value ``(B,)`` of ``x``."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Return ``dS/dx``, ``(B, C, *S)``."""

    @abstractmethod
    def guided_gradient(self, x: Tensor) -> Tensor:
        """Return ``dS/dx`` under the guided rule.

        Raises
        ------
        MethodError
            If the network has no rectifier.
        """

    @abstractmethod
    def layer_map(self, x: Tensor, name: str) -> tuple[Layer, Tensor]:
        """Return a layer and its signed class activation map ``(B, 1, *S_layer)``.

        Raises
        ------
        LayerError
            If there is no such layer, it never ran, or the target does not depend on it.
        """

    @abstractmethod
    def reduce_layers(
        self, x: Tensor, names: Sequence[str], reduce: Reducer
    ) -> Mapping[str, tuple[Layer, Tensor]]:
        """Return ``reduce(activation, gradient)`` of layers, from one forward and backward pass.

        Gradients are reduced one layer at a time while they arrive, so that all layers'
        gradients never sit in memory together.
        """

    @property
    @abstractmethod
    def rectifiers(self) -> tuple[str, ...]:
        """Activations outside the paper that the guided rule was extended to."""

    def layer_grid(self, x: Tensor) -> tuple[int, ...]:
        """Return the grid that layer maps are laid on before they are cut to ``x``'s."""
        return layer_grid(self.network, spatial_shape(x))

    def batch(self, x: Tensor) -> int:
        """Return how many copies of ``x`` go through the network at once."""
        return max(1, VOXELS_AT_ONCE // (x.shape[0] * prod(spatial_shape(x))))
