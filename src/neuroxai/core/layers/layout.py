"""How a layer's output lies: channels before space, channels last, or tokens of a transformer."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

OnGrid = Callable[[Tensor], Tensor]
"""Lays a layer's values out as ``(B, C, *S)``."""


class Layouts:
    """Tells how outputs lie, in one forward pass.

    A shape alone does not say: ``(1, 32, 48, 12)`` may be 32 channels on 48×12 or 12 channels on
    32×48, and a class activation map of the wrong reading looks like any other.

    Parameters
    ----------
    network
        Whose layers are looked at.
    dims
        How many axes an image has, 2 or 3.

    Examples
    --------
    >>> import torch
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Linear(5, 4))
    >>> layouts = Layouts(network, dims=2)
    >>> tokens = network(torch.zeros(1, 1, 6, 5))
    >>> fits, on_grid = layouts.of("1", "Linear", tokens)
    >>> fits, tuple(tokens.shape), tuple(on_grid(tokens).shape)
    (True, (1, 3, 6, 4), (1, 4, 3, 6))
    """

    def __init__(self, network: nn.Module, dims: int) -> None:
        self._modules = dict(network.named_modules())
        self._dims = dims
        self._grids: list[tuple[int, ...]] = []

    def saw(self, grid: tuple[int, ...]) -> None:
        """Remember the grid of a layer that ran."""
        self._grids.append(grid)

    def of(self, name: str, kind: str, output: Tensor) -> tuple[bool, OnGrid | None]:
        """Return whether an output lies over the image's axes, and how to lay it out if not so.

        Parameters
        ----------
        name
            The module's dotted name; any other word for a function.
        kind
            The module's class.
        output
            What it gave.
        """
        if output.dim() == self._dims + 2:
            return self._of_channels(name, kind, output)
        tokens = self._of_tokens(output) if is_block(kind) and output.dim() == 3 else None
        return tokens is not None, tokens

    def _of_channels(self, name: str, kind: str, output: Tensor) -> tuple[bool, OnGrid | None]:
        module = self._modules.get(name)
        if module is None or isinstance(module, (_ConvNd, _NormBase, nn.GroupNorm)):
            return True, None
        if _works_on_the_last_axis(module) or self._within_windows(name):
            return True, _channels_last
        first, last = tuple(output.shape[2:]) in self._grids, tuple(output.shape[1:-1])
        if not first and last in self._grids:
            return True, _channels_last
        return first or not is_block(kind), None

    def _within_windows(self, name: str) -> bool:
        """Whether a module is a block of shifted windows, or a part of one."""
        parts = name.split(".")
        around = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        kinds = (type(self._modules[each]).__name__ for each in around if each in self._modules)
        return any(is_block(kind) and "swin" in kind.lower() for kind in kinds)

    def _of_tokens(self, output: Tensor) -> OnGrid | None:
        """Lay tokens ``(B, N, C)`` on the grid of the convolution that made them."""
        for grid in reversed(self._grids):
            extra = output.shape[1] - prod(grid)
            if extra in (0, 1):  # one token more, the first, is the class token
                return lambda values: values[:, extra:].movedim(2, 1).unflatten(2, grid)
        return None


def is_block(kind: str) -> bool:
    """Whether a class is a transformer's block, by its name."""
    return kind.endswith(("TransformerBlock", "TransformerEncoderLayer"))


def _works_on_the_last_axis(module: nn.Module) -> bool:
    # Of these classes themselves: some that inherit from them turn the axes first.
    if type(module) is nn.LayerNorm:
        return len(module.normalized_shape) == 1
    return type(module) is nn.Linear


def _channels_last(values: Tensor) -> Tensor:
    return values.movedim(-1, 1)
