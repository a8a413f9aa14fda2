"""The arithmetic of a pass: single precision, unless somebody asks for less.

Torch itself lets convolutions on an NVIDIA GPU round to TF32 unless it is told not to; here it is
told so, and left as found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch

from neuroxai.core.errors import ModelError, suggestion

PRECISIONS = ("fp32", "tf32", "bf16")

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
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ModelError(
            f"precision {precision!r}: {suggestion(precision, PRECISIONS)} (there is {known})"
        )
    if precision == "tf32":
        if device.type != "cuda":
            raise ModelError(f"precision 'tf32' is of NVIDIA GPUs, not of {device.type}: use fp32")
        if torch.cuda.get_device_capability(device)[0] < _TENSOR_CORES:
            raise ModelError("precision 'tf32': this GPU does not have it; use fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ModelError("precision 'bf16': this GPU does not have it; use fp32")


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
