"""The arithmetic of a pass: single precision, unless somebody asks for less.

Torch itself lets convolutions on an NVIDIA GPU round to TF32 unless it is told not to; here it is
told so, and left as found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.engine.settings import check_precision_name
from neuroxai.core.errors import ModelError

_HALVES = (torch.float16, torch.bfloat16)

_TENSOR_CORES = 8
"""Compute capability from which a GPU knows TF32."""

_asked: ContextVar[str] = ContextVar("precision", default="fp32")


def asked_precision() -> str:
    """Return the arithmetic that passes are taken in, here."""
    return _asked.get()


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Take passes in ``fp32``, ``tf32`` (GPU alone) or ``bf16``, inside.

    In ``bf16`` convolutions and matrix products round to eight bits of mantissa, by torch's
    autocast; sums, the target and the maps stay in single precision. In ``tf32`` they round their
    factors to ten bits. Whether a device can is for :func:`check_precision` to say.

    Examples
    --------
    >>> with arithmetic("bf16"):
    ...     asked_precision()
    'bf16'
    """
    token = _asked.set(precision)
    try:
        yield
    finally:
        _asked.reset(token)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse an arithmetic that nobody knows, or that a device does not have.

    Raises
    ------
    ModelError
        In one sentence.
    """
    check_precision_name(precision)
    if precision == "tf32":
        if device.type != "cuda":
            raise ModelError(f"precision 'tf32' is of NVIDIA GPUs, not of {device.type}: use fp32")
        if torch.cuda.get_device_capability(device)[0] < _TENSOR_CORES:
            raise ModelError("precision 'tf32': this GPU does not have it; use fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ModelError("precision 'bf16': this GPU does not have it; use fp32")


def upcast(values: Tensor) -> Tensor:
    """Return values of 16 bits in single precision, any others as they are.

    Examples
    --------
    >>> upcast(torch.zeros(2, dtype=torch.float16)).dtype
    torch.float32
    """
    return values.float() if values.dtype in _HALVES else values


@contextmanager
def in_single_precision(network: nn.Module) -> Iterator[None]:
    """Widen a network whose weights all have 16 bits, inside; the very same are back on leaving.

    A gradient through a million voxels is small: in float16 it is zero under 6e-8, and a path of
    50 steps is finer than bfloat16 can tell apart. A network that is of 16 bits in part knows
    where it casts, and is left as it is.
    """
    weights = [p for p in network.parameters() if p.is_floating_point()]
    if not weights or any(p.dtype not in _HALVES for p in weights):
        yield
        return
    narrow = [
        (tensor, tensor.data)
        for tensor in (*weights, *network.buffers())
        if tensor.dtype in _HALVES
    ]
    try:
        for tensor, values in narrow:
            tensor.data = upcast(values)
        with _NoNarrowing():
            yield
    finally:
        for tensor, values in narrow:
            tensor.data = values


_NARROW = (*_HALVES, torch.HalfTensor, torch.BFloat16Tensor)


class _NoNarrowing(FunctionCalls):
    """Casts to 16 bits, as such a network's forward pass may have them, leave single precision."""

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in (torch.Tensor.half, torch.Tensor.bfloat16):
            return torch.Tensor.float(args[0])
        if func in (torch.Tensor.to, torch.Tensor.type):
            args = (args[0], *map(_single, args[1:]))
            kwargs = {key: _single(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _single(argument: Any) -> Any:
    named = isinstance(argument, str) and argument in ("torch.HalfTensor", "torch.BFloat16Tensor")
    return torch.float32 if named or any(argument is each for each in _NARROW) else argument


def lowered(device: torch.device, precision: str | None = None) -> AbstractContextManager[Any]:
    """Return what a forward pass is taken in: autocast for ``bf16``, and none for the others.

    Who calls from within an autocast of their own has not asked for less by that.
    """
    if (precision or _asked.get()) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def no_silent_tf32(devices: Iterable[torch.device]) -> Iterator[None]:
    """Keep convolutions and matrix products from TF32 unless it was asked for, inside."""
    if all(device.type != "cuda" for device in devices):
        yield
        return
    # Its own types do not know these two.
    cudnn: Any = torch.backends.cudnn
    switches = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul]
    found = [switch.fp32_precision for switch in switches]
    wanted = "tf32" if _asked.get() == "tf32" else "ieee"
    try:
        for switch in switches:
            switch.fp32_precision = wanted
        yield
    finally:
        for switch, before in zip(switches, found, strict=True):
            switch.fp32_precision = before
