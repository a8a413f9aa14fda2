"""ReLU written as a selection by sign: ``torch.where(x > 0, x, 0)`` and its relatives.

A selection is recognized by the calls alone, never by the values: the comparison with zero that
made the mask, the conversions it went through, and the call that applies it to the tensor it was
made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

from torch import Tensor
from torch.overrides import resolve_name

from neuroxai.core.rules.backward_rule import bare_name
from neuroxai.core.rules.rectifiers import is_zero

_ABOVE = {"gt", "greater", "ge", "greater_equal"}
_BELOW = {"lt", "less", "le", "less_equal"}
_SIGN = {"sign", "sgn", "heaviside", "signbit"}
_INVERT = {"logical_not", "bitwise_not", "__invert__"}
_CONVERT = {"to", "type", "type_as", "float", "double", "half", "bfloat16", "bool", "int", "long",
            "clone", "detach", "contiguous"}  # fmt: skip
_MULTIPLY = {"mul", "multiply", "mul_", "multiply_"}
_FILL = {"masked_fill", "masked_fill_", "__setitem__"}
_WHERE = {"where"}
_SELECT = _MULTIPLY | _FILL | _WHERE


@dataclass(frozen=True, eq=False)
class _Mask:
    """A mask of where a tensor is positive (True), where it is not (False), or neither (None).

    ``alive`` refers to the mask itself, so that its number is not taken for another tensor's.
    """

    alive: ref[Tensor]
    source: Tensor
    positive: bool | None


class SignMasks:
    """The masks by sign that were made in a forward pass.

    Examples
    --------
    >>> import torch
    >>> x, masks = torch.tensor([-1.0, 2.0]), SignMasks()
    >>> mask = x > 0
    >>> masks.follow(torch.Tensor.gt, (x, 0), {}, mask)
    >>> masks.is_relu(torch.mul, (x, mask), {}), masks.is_relu(torch.mul, (2 * x, mask), {})
    (True, None)
    """

    def __init__(self) -> None:
        self._masks: dict[int, _Mask] = {}

    def clear(self) -> None:
        """Forget all masks."""
        self._masks.clear()

    def follow(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: object,
    ) -> None:
        """Remember the result of a call if it is a mask by sign."""
        if not isinstance(result, Tensor):
            return
        name, given = bare_name(func), [*args, *kwargs.values()]
        if name in _ABOVE | _BELOW and len(given) == 2:
            first, second = given
            if isinstance(first, Tensor) and is_zero(second):
                self._add(result, first, positive=name in _ABOVE)
            elif isinstance(second, Tensor) and is_zero(first):
                self._add(result, second, positive=name in _BELOW)
        elif name in _SIGN and given and isinstance(given[0], Tensor):
            self._add(result, given[0], positive=None)
        elif self._masks and not result.requires_grad:
            self._derive(name, given, result)

    def is_relu(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool | None:
        """Return whether a selection of a tensor by its own sign is ReLU.

        None if the call does not select by sign; False for a selection that is not ReLU, such as
        ``torch.where(x > 0, x, 0.1 * x)``.
        """
        name = bare_name(func)
        if not self._masks or name not in _SELECT:
            return None
        given = [*args, *kwargs.values()]
        masks = [(place, mask) for place, each in enumerate(given) if (mask := self._of(each))]
        for place, mask in masks:
            if any(isinstance(each, Tensor) and _same(each, mask.source) for each in given):
                return _is_relu(name, given, place, mask)
        return None

    def _derive(self, name: str, given: list[Any], result: Tensor) -> None:
        """Remember what was made of a mask; unless it is known what, its sign is unknown."""
        mask = next((mask for each in given if (mask := self._of(each))), None)
        if mask is None or mask.alive() is result or result.shape != mask.source.shape:
            return
        positive = mask.positive if name in _CONVERT else None
        if name in _INVERT and mask.positive is not None:
            positive = not mask.positive
        self._masks[id(result)] = replace(mask, alive=ref(result), positive=positive)

    def _add(self, mask: Tensor, source: Tensor, *, positive: bool | None) -> None:
        if source.is_floating_point() and mask.shape == source.shape:
            self._masks[id(mask)] = _Mask(ref(mask), source.detach(), positive)

    def _of(self, candidate: object) -> _Mask | None:
        mask = self._masks.get(id(candidate))
        return mask if mask is not None and mask.alive() is candidate else None


def call_name(func: Callable[..., Any]) -> str:
    """Return a torch function's name for a message, such as ``torch.where``."""
    return str(resolve_name(func) or bare_name(func))


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are the same values in memory, with or without a graph."""
    return one.shape == other.shape and one.data_ptr() == other.data_ptr()


def _is_relu(name: str, given: list[Any], place: int, mask: _Mask) -> bool:
    if mask.positive is None:
        return False
    if name in _MULTIPLY:
        return len(given) == 2 and mask.positive
    if name in _FILL:
        return len(given) == 3 and place == 1 and not mask.positive and is_zero(given[2])
    if len(given) != 3:
        return False
    # torch.where(mask, x, 0), or x.where(mask, 0)
    chosen, other = (given[1], given[2]) if place == 0 else (given[0], given[2])
    kept, dropped = (chosen, other) if mask.positive else (other, chosen)
    return isinstance(kept, Tensor) and _same(kept, mask.source) and is_zero(dropped)
