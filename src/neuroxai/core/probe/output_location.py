"""Where the output of a segmenter is on its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from neuroxai.core.covered import Covered
from neuroxai.core.layers.positions import trace
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.outputs import Outputs


@dataclass(eq=False)
class OutputLocation:
    """Finds the part of the image that smaller outputs cover, once for each shape.

    Parameters
    ----------
    network, x, outputs
        The network, an image ``(B, C, *S)``, and which of its outputs is meant.

    Examples
    --------
    >>> import torch
    >>> network = nn.Conv2d(1, 2, (3, 5), padding=(1, 0))
    >>> locate = OutputLocation(network, torch.zeros(1, 1, 6, 9), Outputs())
    >>> locate((6, 5)).box, locate((6, 9)), locate((3, 4))
    ((slice(0, 6, None), slice(2, 7, None)), None, None)
    """

    network: nn.Module
    x: Tensor
    outputs: Outputs
    _found: dict[tuple[int, ...], Covered | None] = field(default_factory=dict)

    def __call__(self, shape: tuple[int, ...]) -> Covered | None:
        """Return the part that an output of a shape covers; None if it is all, or unknown."""
        size = spatial_shape(self.x)
        if shape == size or len(shape) != len(size):
            return None
        if shape not in self._found:
            self._found[shape] = self._trace(shape)
        return self._found[shape]

    def _trace(self, shape: tuple[int, ...]) -> Covered | None:
        size = spatial_shape(self.x)
        found = trace(self.network, self.x, partial(self.outputs.select, x=self.x))
        if found.output is None or found.shape[2:] != shape:
            return None
        box = found.output.box(shape, size)
        return None if box is None else Covered(box, size)
