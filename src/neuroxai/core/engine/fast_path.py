"""Faster ways to the same answer, for any network and without editing it.

A function mode sees the calls of torch that a network makes and sends those with a faster kernel to
it: ``convolution``, ``normalization``, ``upsampling`` and ``concatenation`` in this folder. Other
calls go on to stock torch. A network that depends on how its tensors lie in memory (``view`` on
a convolution's result) fails under it; it is run again in stock torch, and so ever after.
"""

from __future__ import annotations

import os
import platform
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.engine.concatenation import join_channels
from neuroxai.core.engine.convolution import (
    CHANNELS_LAST,
    Geometry,
    LaidWeights,
    convolve,
    convolve_transposed,
    triple,
)
from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.engine.memory import is_shortage
from neuroxai.core.engine.normalization import batch_norm, group_norm
from neuroxai.core.engine.precision import asked_precision
from neuroxai.core.engine.upsampling import repeat_nearest

SWITCH = "NEUROXAI_STOCK_TORCH"
"""The environment variable that switches the fast path off, if set to anything but 0."""

T = TypeVar("T")

_stock: ContextVar[bool] = ContextVar("stock_torch", default=False)
_laid: ContextVar[LaidWeights | None] = ContextVar("laid_weights", default=None)
_bound_to_layout: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@contextmanager
def stock_torch() -> Iterator[None]:
    """Run networks in stock torch inside, to the bit.

    The environment variable ``NEUROXAI_STOCK_TORCH=1`` does the same for a whole process.

    Examples
    --------
    >>> with stock_torch():
    ...     is_fast(torch.zeros(1, 1, 4, 4, 4), nn.Identity())
    False
    """
    token = _stock.set(True)
    try:
        yield
    finally:
        _stock.reset(token)


@contextmanager
def weights_kept() -> Iterator[None]:
    """Keep the weights as the faster twins want them from one pass to the next, inside."""
    token = _laid.set(LaidWeights())
    try:
        yield
    finally:
        _laid.reset(token)


def is_fast(x: Tensor, network: nn.Module) -> bool:
    """Whether passes of ``x`` through a network go the fast way."""
    return (
        x.dim() == 5
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and asked_precision() == "fp32"
        and not _stock.get()
        and os.environ.get(SWITCH, "0") in ("", "0")
        and network not in _bound_to_layout
        and _pays()
    )


def run_fast(network: nn.Module, x: Tensor, work: Callable[[Tensor], T]) -> T:
    """Return ``work(x)``, which sends ``x`` through a network, the fast way where there is one.

    ``work`` may be called twice: with the channels last, and, if that fails, with ``x`` as it is.
    """
    if not is_fast(x, network):
        return work(x)
    laid = x.contiguous(memory_format=CHANNELS_LAST)
    try:
        with FastPath():
            return work(laid)
    except RuntimeError as error:
        if is_shortage(error):
            raise
        found = work(x)  # a fault of the network's own comes up again, from stock torch
        _bound_to_layout.add(network)
        return found


class FastPath(FunctionCalls):
    """Context manager that sends calls to faster kernels; backward passes do not need it."""

    def __init__(self) -> None:
        super().__init__()
        self.laid = _laid.get() or LaidWeights()

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a call gives, from its faster twin where it has one."""
        kernel = _TWINS.get(func)
        if kernel is not None:
            try:
                found = kernel(self.laid, *args, **kwargs)
            except TypeError:  # it is called in a way that the twin does not know
                found = None
            if found is not None:
                return found
        return func(*args, **kwargs)


def _conv3d(
    laid: LaidWeights,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    if not _frozen(input, weight, bias):
        return None
    spread = triple(dilation)
    if isinstance(padding, str):
        reach = [d * (k - 1) if padding == "same" else 0
                 for d, k in zip(spread, weight.shape[2:], strict=True)]  # fmt: skip
        if any(r % 2 for r in reach):
            return None
        padding = [r // 2 for r in reach]
    at = Geometry(triple(stride), triple(padding), spread, groups)
    return convolve(input, weight, bias, at, laid)


def _conv_transpose3d(
    laid: LaidWeights,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    if not _frozen(input, weight, bias):
        return None
    at = Geometry(triple(stride), triple(padding), triple(dilation), groups, triple(output_padding))
    if any(o >= s for o, s in zip(at.output_padding, at.stride, strict=True)):
        return None
    return convolve_transposed(input, weight, bias, at, laid)


def _batch_norm(
    laid: LaidWeights,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if running_mean is None or running_var is None or training:
        return None
    if not (input.requires_grad and _frozen(input, weight, bias)):
        return None
    return batch_norm(input, running_mean, running_var, weight, bias, eps)


def _instance_norm(
    laid: LaidWeights,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    own = use_input_stats and running_mean is None and running_var is None
    if not (own and _frozen(input, weight, bias) and input[0, 0].numel() > 1):
        return None
    return group_norm(input, input.shape[1], weight, bias, eps)


def _group_norm(
    laid: LaidWeights,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if not _frozen(input, weight, bias) or num_groups < 1 or input.shape[1] % num_groups:
        return None
    return group_norm(input, num_groups, weight, bias, eps)


def _interpolate(
    laid: LaidWeights,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *rest: Any,
    **more: Any,
) -> Tensor | None:
    given = [value for value in (*rest, *more.values()) if value not in (None, False)]
    if mode != "nearest" or given or not (_frozen(input, None, None) and input.requires_grad):
        return None
    return repeat_nearest(input, size, scale_factor)


def _cat(
    laid: LaidWeights, tensors: Any, dim: int = 0, *, out: Tensor | None = None
) -> Tensor | None:
    if dim not in (1, -4) or out is not None or not isinstance(tensors, (list, tuple)):
        return None
    if not all(_frozen(part, None, None) for part in tensors):
        return None
    if not any(part.requires_grad for part in tensors):
        return None
    return join_channels(tensors)


def _lies_elsewhere(laid: LaidWeights, input: Any, *rest: Any, **more: Any) -> None:
    """Refuse what would read a tensor's memory in another order than it lies."""
    if isinstance(input, Tensor) and input.dim() == 5 and not input.is_contiguous():
        raise RuntimeError("the network depends on how a tensor lies in memory")


_TWINS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.conv3d: _conv3d,
    torch.ops.aten.conv3d.default: _conv3d,
    functional.conv_transpose3d: _conv_transpose3d,
    functional.batch_norm: _batch_norm,
    functional.instance_norm: _instance_norm,
    functional.group_norm: _group_norm,
    functional.interpolate: _interpolate,
    torch.cat: _cat,
    torch.concat: _cat,
    torch.concatenate: _cat,
    torch.as_strided: _lies_elsewhere,
    torch.Tensor.as_strided: _lies_elsewhere,
}


def _frozen(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether the twins are made for a call: single precision, on the CPU, frozen weights."""
    if type(x) is not Tensor or x.dim() != 5 or x.numel() == 0:
        return False
    return x.dtype == torch.float32 and x.device.type == "cpu" and all(
        part is None or (part.dtype == x.dtype and not part.requires_grad)
        for part in (weight, bias)
    )  # fmt: skip


@cache
def _pays() -> bool:
    """Whether the twins were measured on such a machine; others are left to stock torch."""
    measured = platform.machine().lower() in ("x86_64", "amd64")
    return measured and bool(torch.backends.mkldnn.is_available())


__all__ = ["SWITCH", "FastPath", "is_fast", "run_fast", "stock_torch", "weights_kept"]
