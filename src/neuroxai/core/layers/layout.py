"""Memory order of layer outputs: channels first, channels last, or tokens of a transformer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from neuroxai.core.errors import LayerError
from neuroxai.core.layers.labels import format_grid

Rearrange = Callable[[Tensor], Tensor]
"""Rearranges the values of a layer as ``(B, C, *S)``."""

_CHANNELS_FIRST = (
    _ConvNd, _NormBase, nn.GroupNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd, nn.Upsample,
)  # fmt: skip
"""Modules of torch that are defined on ``(B, C, *S)`` alone."""


@dataclass(frozen=True)
class TokenOrder:
    """Rearranges tokens ``(B, N, C)`` or ``(B, C, N)`` as ``(B, C, *S)``.

    Attributes
    ----------
    axis
        The axis of the tokens, 1 or 2.
    grid
        Their grid ``S``; the last axis varies fastest.
    leading
        The number of tokens before them that have no cell: class and register tokens.
    """

    axis: int
    grid: tuple[int, ...]
    leading: int = 0

    def __call__(self, values: Tensor) -> Tensor:
        """Return the values ``(B, C, *S)``."""
        cells: Tensor = values.movedim(self.axis, 2)[:, :, self.leading :].unflatten(2, self.grid)
        return cells


class Layouts:
    """Layouts of the layer outputs in one forward pass.

    A shape is ambiguous: ``(1, 32, 48, 12)`` may be 32 channels on 48×12 cells or 12 channels on
    32×48 cells, and a class activation map of the wrong reading looks plausible. The layers that
    ran before decide by their grids and channels, then the sizes of the module's own parameters.
    What they leave open has no layout. Names of classes are not used.

    Parameters
    ----------
    dims
        The number of spatial axes of an image, 2 or 3.

    Examples
    --------
    >>> import torch
    >>> layouts = Layouts(dims=2)
    >>> image = torch.zeros(1, 3, 6, 5)
    >>> layouts.add(image)
    >>> tokens = torch.zeros(1, 1 + 6 * 5, 3)  # a class token and the cells of the image
    >>> spatial, rearrange = layouts.of(nn.Identity(), tokens)
    >>> spatial, tuple(rearrange(tokens).shape)
    (True, (1, 3, 6, 5))
    >>> layouts.of(nn.Identity(), torch.zeros(1, 48, 12, 32))
    (False, None)
    """

    def __init__(self, dims: int) -> None:
        self._dims = dims
        self._seen: list[tuple[int, ...]] = []
        self._tokens: dict[tuple[int, int], tuple[int, ...]] = {}
        self._channels_were_last = False

    def add(self, values: Tensor) -> None:
        """Remember the batch, channels and grid of a layer's values ``(B, C, *S)``."""
        self._seen.append(tuple(values.shape))

    def observe(self, module: nn.Module, output: object) -> None:
        """Remember the grid of a layer norm, from which the modules around it take theirs."""
        if isinstance(output, Tensor) and _acts_on_last_axis(module):
            spatial, rearrange = self.of(module, output)
            if spatial and rearrange is not None:
                self._channels_were_last = True
                self.add(rearrange(output.detach()))

    def of(self, module: nn.Module | None, output: Tensor) -> tuple[bool, Rearrange | None]:
        """Return whether an output has the image's spatial axes, and how to rearrange it.

        Parameters
        ----------
        module
            The module; None for a convolution that is called as a function.
        output
            The module's output.

        Returns
        -------
        Whether the output is spatial; and the rearrangement, None if channels are first already.
        """
        if output.dim() == self._dims + 2:
            return self._of_grid(module, output)
        if output.dim() == 3 and module is not None:
            return self._of_tokens(output)
        return False, None

    def on_grid(self, module: nn.Module, output: Tensor, grid: tuple[int, ...]) -> Rearrange | None:
        """Return how to rearrange an output whose grid is given; None if channels are first.

        Tokens may have fewer other tokens before them than cells.

        Raises
        ------
        LayerError
            If the output does not fit the grid, or fits it in two ways.
        """
        readings: list[Rearrange | None] = []
        sizes = tuple(output.shape[1:])
        if len(grid) == self._dims and output.dim() == self._dims + 2:
            readings += [None] if sizes[1:] == grid else []
            readings += [_channels_first] if sizes[:-1] == grid else []
        elif len(grid) == self._dims and output.dim() == 3:
            count = prod(grid)
            leading = sizes[0] - count
            readings += [TokenOrder(1, grid, leading)] if 0 <= leading < count else []
            channels = _sizes(module, first=False)
            readings += [TokenOrder(2, grid)] if sizes[1] == count and count not in channels else []
        if not readings:
            raise LayerError(
                f"its output of {sizes} per sample does not fit the layer grid "
                f"{format_grid(grid)}, expected {prod(grid)} tokens with at most as many class and "
                "register tokens before them, or the grid itself"
            )
        if len(readings) == 1:
            return readings[0]
        spatial, known = self.of(module, output)
        if spatial and known in readings:
            return known
        raise LayerError(
            f"its output of {sizes} per sample fits the layer grid {format_grid(grid)} with the "
            "channels first and last: name a layer inside it or before it"
        )

    def _of_grid(self, module: nn.Module | None, output: Tensor) -> tuple[bool, Rearrange | None]:
        if module is None or isinstance(module, _CHANNELS_FIRST):
            return True, None
        batch, *inner = output.shape
        first, last = (inner[0], tuple(inner[1:])), (inner[-1], tuple(inner[:-1]))
        # Windows of an image, stacked along the batch, are not on the grid of any layer before.
        grids = [seen[2:] for seen in self._seen if seen[0] == batch]
        if _acts_on_last_axis(module):
            known = last[1] in grids or _is_coarser(last[1], grids)
            return known, _channels_first if known else None
        if {*first[1]} <= {count for _, count in self._tokens}:
            return False, None  # attention of tokens to tokens
        if self._seen and not grids:
            return False, None
        channels = {seen[1] for seen in self._seen}
        evidence = (
            (first[1] in grids, last[1] in grids),
            (first[0] in _sizes(module, first=True), last[0] in _sizes(module, first=False)),
            (_is_coarser(first[1], grids), _is_coarser(last[1], grids)),
            (first[0] in channels, last[0] in channels),
        )
        for is_first, is_last in evidence:
            if is_first != is_last:
                return True, None if is_first else _channels_first
        # As many channels as cells along each axis: all layers before had the channels first.
        return all(evidence[0]) and not self._channels_were_last, None

    def _of_tokens(self, output: Tensor) -> tuple[bool, Rearrange | None]:
        """Return how to put ``(B, N, C)`` or ``(B, C, N)`` on the grid that the tokens had.

        Further tokens (class, registers) come first. They are accepted only where the number of
        channels, or another layer with as many tokens, confirms that N counts tokens.
        """
        batch, *sizes = output.shape
        readings = [
            (axis, grid, extra)
            for axis in (1, 2)
            for grid, extra in self._grids_of(batch, sizes[axis - 1], sizes[2 - axis])
            if axis == 1 or extra == 0
        ]
        if len(readings) != 1:
            return False, None
        axis, grid, extra = readings[0]
        self._tokens[batch, output.shape[axis]] = grid
        return True, TokenOrder(axis, grid, extra)

    def _grids_of(self, batch: int, count: int, channels: int) -> list[tuple[tuple[int, ...], int]]:
        """Return the grids that ``count`` tokens may have, each with the number of other tokens."""
        seen = [each for each in self._seen if each[0] == batch and prod(each[2:]) > 1]
        same = [each for each in seen if each[1] == channels]
        known = self._tokens.get((batch, count))
        if known is not None and not same:
            return [(known, count - prod(known))]
        exact = {each[2:] for each in same or seen if prod(each[2:]) == count}
        if exact:
            return [(grid, 0) for grid in exact]
        # Fewer than the tokens of the image: otherwise every smaller grid would be possible.
        grids = {each[2:] for each in same if prod(each[2:]) < count < 2 * prod(each[2:])}
        return [(grid, count - prod(grid)) for grid in grids]


def is_block(module: nn.Module) -> bool:
    """Return whether a module is the innermost one that normalizes and mixes tokens.

    It has a layer norm as a child and linear layers in it, and no convolution: a transformer block,
    however its class is named.
    """
    return _normalizes_tokens(module) and not any(
        _normalizes_tokens(part) for part in module.modules() if part is not module
    )


def _normalizes_tokens(module: nn.Module) -> bool:
    if not any(isinstance(child, nn.LayerNorm) for child in module.children()):
        return False
    parts = [*module.modules()]
    linear = any(isinstance(part, nn.Linear) for part in parts)
    return linear and not any(isinstance(part, _ConvNd) for part in parts)


def _acts_on_last_axis(module: nn.Module) -> bool:
    # The exact classes: some subclasses permute the axes first.
    if type(module) is nn.LayerNorm:
        return len(module.normalized_shape) == 1
    return type(module) is nn.Linear


def _sizes(module: nn.Module, *, first: bool) -> set[int]:
    """Return the numbers of channels of a module's parts that have them first, or last."""
    sizes: set[int] = set()
    for part in module.modules():
        if first and isinstance(part, _ConvNd):
            sizes.add(part.out_channels)
        elif first and isinstance(part, _NormBase):
            sizes.add(part.num_features)
        elif not first and isinstance(part, nn.Linear):
            sizes.add(part.out_features)
        elif not first and isinstance(part, nn.LayerNorm) and len(part.normalized_shape) == 1:
            sizes.add(part.normalized_shape[0])
    return sizes


def _is_coarser(grid: tuple[int, ...], grids: list[tuple[int, ...]]) -> bool:
    """Return whether a grid is one of ``grids`` at a stride that is equal on all axes."""
    return any(
        all(n // stride <= m <= -(-n // stride) for m, n in zip(grid, finer, strict=True))
        for finer in grids
        for stride in range(2, max(finer) + 1)
    )


def _channels_first(values: Tensor) -> Tensor:
    return values.movedim(-1, 1)
