"""Settings of a pass through a network; free of torch, so that options are checked quickly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from neuroxai.core.errors import ModelError, suggestion

PRECISIONS = ("fp32", "tf32", "bf16")
"""Single precision, NVIDIA's TensorFloat-32, and bfloat16 by autocast."""

STOCK_TORCH_VARIABLE = "NEUROXAI_STOCK_TORCH"
"""Environment variable that disables the fast path if set to anything but 0."""

_stock_torch: ContextVar[bool] = ContextVar("stock_torch", default=False)
"""Default of new settings only; a pass reads its own settings."""


@contextmanager
def stock_torch() -> Iterator[None]:
    """Context manager in which new settings disable the fast path.

    Passes then call stock PyTorch's functions only. ``NEUROXAI_STOCK_TORCH=1`` does the same for a
    whole process.

    Examples
    --------
    >>> with stock_torch():
    ...     PassSettings().fast_path
    False
    """
    token = _stock_torch.set(True)
    try:
        yield
    finally:
        _stock_torch.reset(token)


def _fast_path_enabled() -> bool:
    return not _stock_torch.get() and os.environ.get(STOCK_TORCH_VARIABLE, "0") in ("", "0")


@dataclass(frozen=True)
class PassSettings:
    """How passes through a network are computed.

    Parameters
    ----------
    precision
        One of :data:`PRECISIONS`. In ``bf16``, convolutions and matrix products round to eight bits
        of mantissa by torch's autocast; sums, the target and the maps stay in single precision. In
        ``tf32``, they round their factors to ten bits.
    fast_path
        Whether to use the faster CPU kernels of :mod:`~neuroxai.core.engine.fast_path` where they
        apply. The default is True unless :func:`stock_torch` or ``NEUROXAI_STOCK_TORCH`` is set.

    Raises
    ------
    ModelError
        If the precision is unknown.

    Examples
    --------
    >>> PassSettings("bf16").precision
    'bf16'
    """

    precision: str = "fp32"
    fast_path: bool = field(default_factory=_fast_path_enabled)

    def __post_init__(self) -> None:
        check_precision_name(self.precision)


def check_precision_name(precision: str) -> None:
    """Raise if a precision is unknown.

    Raises
    ------
    ModelError
        If ``precision`` is not one of :data:`PRECISIONS`.

    Examples
    --------
    >>> check_precision_name("bf16")
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ModelError(
            f"unknown precision {precision!r}: {suggestion(precision, PRECISIONS)} "
            f"(supported: {known})"
        )


DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Device types of torch that compute on data; others, such as ``meta``, hold no values."""


def check_device_name(device: str) -> None:
    """Raise if a text does not name a device; whether the device exists is not checked.

    Raises
    ------
    ModelError
        If ``device`` is neither ``auto`` nor one of :data:`DEVICES` with an optional index.

    Examples
    --------
    >>> check_device_name("auto")
    >>> check_device_name("cuda:1")
    """
    kind, colon, index = device.partition(":")
    if device != "auto" and (kind not in DEVICES or (colon and not index.isdecimal())):
        raise ModelError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:1")
