"""A target that is bound at the first output it meets, the one at the explained point."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target


@dataclass(eq=False)
class Binding:
    """A target, bound once.

    Attributes
    ----------
    target, outputs
        The target, and the meaning of the output channels.
    bound
        The bound target; None before the first output.

    Examples
    --------
    >>> import torch
    >>> from neuroxai.core.target.target import Predicted
    >>> binding = Binding(Predicted(), Outputs())
    >>> first = binding.bind(torch.tensor([[0.0, 2.0]]))
    >>> binding.bind(torch.tensor([[2.0, 0.0]])) is first
    True
    """

    target: Target
    outputs: Outputs
    bound: BoundTarget | None = None

    def bind(self, output: Tensor) -> BoundTarget:
        """Return the bound target; the first call binds it at ``output``."""
        if self.bound is None:
            self.bound = self.target.bind(self.outputs, output)
        return self.bound

    def bind_without_output(self, x: Tensor) -> bool:
        """Bind a target that depends on the output's shape alone; return whether it is linear.

        Then the gradient with respect to the output is the same for every output.
        """
        names = self.outputs.names
        if self.bound is None and names and not self.target.needs_output(self.outputs):
            self.bind(x.new_zeros(1).expand((x.shape[0], len(names), *spatial_shape(x))))
        return self.bound is not None and self.bound.linear
