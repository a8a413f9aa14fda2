"""Memory order of layer outputs: channels first, channels last, or tokens of a transformer."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

Rearrange = Callable[[Tensor], Tensor]
"""Rearranges the values of a layer as ``(B, C, *S)``."""


class Layouts:
    """Layouts of the layer outputs in one forward pass.

    A shape is ambiguous: ``(1, 32, 48, 12)`` may be 32 channels on 48×12 cells or 12 channels on
    32×48 cells, and a class activation map of the wrong reading looks plausible. The class of the
    module, and the grids of the layers before it, decide.

    Parameters
    ----------
    network
        The network the layers belong to.
    dims
        The number of spatial axes of an image, 2 or 3.

    Examples
    --------
    >>> import torch
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Linear(5, 4))
    >>> layouts = Layouts(network, dims=2)
    >>> tokens = network(torch.zeros(1, 1, 6, 5))
    >>> spatial, rearrange = layouts.of("1", "Linear", tokens)
    >>> spatial, tuple(tokens.shape), tuple(rearrange(tokens).shape)
    (True, (1, 3, 6, 4), (1, 4, 3, 6))
    """

    def __init__(self, network: nn.Module, dims: int) -> None:
        self._modules = dict(network.named_modules())
        self._dims = dims
        self._grids: list[tuple[int, ...]] = []

    def add_grid(self, grid: tuple[int, ...]) -> None:
        """Remember the grid of a layer that ran."""
        self._grids.append(grid)

    def of(self, name: str, kind: str, output: Tensor) -> tuple[bool, Rearrange | None]:
        """Return whether an output has the image's spatial axes, and how to rearrange it.

        Parameters
        ----------
        name
            The module's dotted name; for a function, a name that no module has.
        kind
            The module's class.
        output
            The layer's output.

        Returns
        -------
        Whether the output is spatial; and the rearrangement, None if channels are first already.
        """
        if output.dim() == self._dims + 2:
            return self._of_channels(name, kind, output)
        tokens = self._of_tokens(output) if is_block(kind) and output.dim() == 3 else None
        return tokens is not None, tokens

    def _of_channels(self, name: str, kind: str, output: Tensor) -> tuple[bool, Rearrange | None]:
        module = self._modules.get(name)
        if module is None or isinstance(module, (_ConvNd, _NormBase, nn.GroupNorm)):
            return True, None
        if _acts_on_last_axis(module) or self._within_shifted_windows(name):
            return True, _channels_first
        first, last = tuple(output.shape[2:]) in self._grids, tuple(output.shape[1:-1])
        if not first and last in self._grids:
            return True, _channels_first
        return first or not is_block(kind), None

    def _within_shifted_windows(self, name: str) -> bool:
        """Return whether a module is part of a Swin transformer block, which is channels last."""
        parts = name.split(".")
        parents = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        kinds = (type(self._modules[each]).__name__ for each in parents if each in self._modules)
        return any(is_block(kind) and "swin" in kind.lower() for kind in kinds)

    def _of_tokens(self, output: Tensor) -> Rearrange | None:
        """Return how to put tokens ``(B, N, C)`` on the grid of the layer they were made by."""
        for grid in reversed(self._grids):
            extra = output.shape[1] - prod(grid)
            if extra in (0, 1):  # one more token, the first, is the class token
                return lambda values: values[:, extra:].movedim(2, 1).unflatten(2, grid)
        return None


def is_block(kind: str) -> bool:
    """Return whether a class is a transformer block, by its name."""
    return kind.endswith(("TransformerBlock", "TransformerEncoderLayer"))


def _acts_on_last_axis(module: nn.Module) -> bool:
    # The exact classes: some subclasses permute the axes first.
    if type(module) is nn.LayerNorm:
        return len(module.normalized_shape) == 1
    return type(module) is nn.Linear


def _channels_first(values: Tensor) -> Tensor:
    return values.movedim(-1, 1)
