"""A target that is bound already, and stays the same for other inputs and networks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Restriction
from neuroxai.core.target.scale import OutputScale
from neuroxai.core.target.target import Target


@dataclass(frozen=True, eq=False)
class Fixed(Target):
    """A target with its classes and place fixed elsewhere: :meth:`bind` returns it as it is.

    Another network may predict nothing where the first one does, and another input something else;
    maps of the same question can be compared, those of two questions cannot.

    Parameters
    ----------
    bound
        The bound target.
    """

    bound: BoundTarget
    scale: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """The name of the bound target."""
        return str(self.bound.description["name"])

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the channels of the bound target."""
        return self.bound.channels

    def bind(self, outputs: Outputs, output: Tensor) -> BoundTarget:
        """Return the bound target."""
        return self.bound
