"""Floating-point precision of a pass: single precision, or less on request.

By default, torch rounds convolutions on NVIDIA GPUs to TF32. Here passes do so only on request, and
torch's switches are restored afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.engine.settings import check_precision_name
from neuroxai.core.errors import ModelError

_HALF_DTYPES = (torch.float16, torch.bfloat16)

_TF32_CAPABILITY = 8
"""Compute capability from which NVIDIA GPUs support TF32 (Ampere)."""


def check_precision(precision: str, device: torch.device) -> None:
    """Raise if a precision is unknown, or a device does not support it.

    Raises
    ------
    ModelError
        If the precision cannot be used on ``device``.
    """
    check_precision_name(precision)
    if precision == "tf32":
        if device.type != "cuda":
            raise ModelError(
                f"precision 'tf32' requires an NVIDIA GPU, the device is {device.type}: use fp32"
            )
        if torch.cuda.get_device_capability(device)[0] < _TF32_CAPABILITY:
            raise ModelError("precision 'tf32' is not supported by this GPU: use fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ModelError("precision 'bf16' is not supported by this GPU: use fp32")


def upcast(values: Tensor) -> Tensor:
    """Convert values of 16 bits to single precision; return others unchanged.

    Examples
    --------
    >>> upcast(torch.zeros(2, dtype=torch.float16)).dtype
    torch.float32
    """
    return values.float() if values.dtype in _HALF_DTYPES else values


@contextmanager
def in_single_precision(network: nn.Module) -> Iterator[None]:
    """Context manager that upcasts a 16-bit network; on exit it has its original tensors again.

    In 16 bits, gradients averaged over a million voxels underflow (float16 is zero below 6e-8), and
    a path of 50 steps is finer than the resolution of bfloat16. Only a network whose floating-point
    weights all have 16 bits is upcast: a network of mixed precision handles its own casts.
    """
    weights = [p for p in network.parameters() if p.is_floating_point()]
    if not weights or any(p.dtype not in _HALF_DTYPES for p in weights):
        yield
        return
    halves = [
        (tensor, tensor.data)
        for tensor in (*weights, *network.buffers())
        if tensor.dtype in _HALF_DTYPES
    ]
    try:
        for tensor, values in halves:
            tensor.data = upcast(values)
        with _NoHalfCasts():
            yield
    finally:
        for tensor, values in halves:
            tensor.data = values


_HALF_TYPES = (*_HALF_DTYPES, torch.HalfTensor, torch.BFloat16Tensor)


class _NoHalfCasts(FunctionCalls):
    """Replaces casts to 16 bits in a network's forward pass by casts to single precision."""

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in (torch.Tensor.half, torch.Tensor.bfloat16):
            return torch.Tensor.float(args[0])
        if func in (torch.Tensor.to, torch.Tensor.type):
            args = (args[0], *map(_single, args[1:]))
            kwargs = {key: _single(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _single(argument: Any) -> Any:
    by_name = isinstance(argument, str) and argument in ("torch.HalfTensor", "torch.BFloat16Tensor")
    return torch.float32 if by_name or any(argument is each for each in _HALF_TYPES) else argument


def autocast_for(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the autocast context of a forward pass: on for ``bf16``, off otherwise.

    A caller's own autocast is disabled, because it does not request lower precision from us.

    Examples
    --------
    >>> with autocast_for("bf16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def tf32_allowed(devices: Iterable[torch.device], *, allowed: bool) -> Iterator[None]:
    """Context manager that switches TF32 on or off if any of the devices is a GPU."""
    if all(device.type != "cuda" for device in devices):
        yield
        return
    # torch's stubs lack both.
    cudnn: Any = torch.backends.cudnn
    switches = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
