"""Work around torch's CPU batch and instance norms, which misread some memory layouts.

On the CPU, the backward pass of batch norm (instance norm uses it, too) reads the wrong elements if
the strides of the input or of the incoming gradient are neither those of ``contiguous_format`` nor
those of ``channels_last``, although torch considers the tensor contiguous in one of the two: sizes
of one leave strides undetermined. Gradients are then off by 100 % and more (torch 2.13, see
``docs/upstream``). It happens for a batch of one whose channels become
tokens of a frozen linear layer, as in hybrids of convolutions and transformers. Instance norm even
misreads a plain channels-last gradient.

With the batch's own statistics, torch's channels-last batch norm also sums a whole image in single
precision, so the input is then made contiguous as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from neuroxai.core.engine.function_calls import FunctionCalls

_aten = torch.ops.aten

_BATCH_NORMS = frozenset(
    {
        functional.batch_norm,
        torch.batch_norm,
        torch.native_batch_norm,
        _aten.batch_norm.default,
        _aten.native_batch_norm.default,
        _aten._native_batch_norm_legit_no_training.default,
    }
)
_INSTANCE_NORMS = frozenset(
    {functional.instance_norm, torch.instance_norm, _aten.instance_norm.default}
)


class NormGradients(FunctionCalls):
    """Context manager in which batch and instance norms have correct gradients on the CPU.

    Examples
    --------
    >>> x = torch.rand(1, 2, 3, 4, requires_grad=True)
    >>> tokens = torch.rand(1, 12, 2).transpose(1, 2).reshape(x.shape)  # strides (2, 1, 8, 2)
    >>> with NormGradients():
    ...     y = functional.batch_norm(x, torch.zeros(2), torch.ones(2), eps=0.0)
    >>> (gradient,) = torch.autograd.grad(y, x, tokens)
    >>> bool(torch.equal(gradient, tokens))
    True
    """

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call, with the layouts of a norm made unambiguous."""
        if func in _BATCH_NORMS:
            args, kwargs = _with_plain_input(args, kwargs)
        elif func not in _INSTANCE_NORMS:
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        y = result[0] if isinstance(result, (tuple, list)) else result
        if isinstance(y, Tensor) and y.requires_grad and y.device.type == "cpu":
            y.register_hook(_contiguous)
        return result


def _with_plain_input(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor) or x.device.type != "cpu":
        return args, kwargs
    # All of them have ``training`` in the same place, but for the one without it, which uses fixed
    # statistics and has a number there.
    own_statistics = args[5] if len(args) > 5 else kwargs.get("training", False)
    if own_statistics is not True and _is_channels_last(x):
        return args, kwargs
    plain = _contiguous(x)
    return ((plain, *args[1:]), kwargs) if args else (args, {**kwargs, "input": plain})


def _contiguous(x: Tensor) -> Tensor:
    """Return ``x`` with exactly the strides of ``contiguous_format``, a copy if necessary.

    Unlike ``x.contiguous()``, this also fixes the strides of axes of size one.
    """
    if x.stride() == _packed_strides(x, range(x.dim())):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _is_channels_last(x: Tensor) -> bool:
    """Return whether ``x`` ``(B, C, *S)`` has exactly the strides of channels-last."""
    if x.dim() not in (4, 5):
        return False
    return x.stride() == _packed_strides(x, (0, *range(2, x.dim()), 1))


def _packed_strides(x: Tensor, order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a dense tensor with its axes in the given memory order."""
    strides, step = [0] * x.dim(), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= x.shape[axis]
    return tuple(strides)
