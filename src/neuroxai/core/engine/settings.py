"""Settings of a pass through a network; free of torch, so that options are checked quickly."""

from __future__ import annotations

from neuroxai.core.errors import ModelError, suggestion

PRECISIONS = ("fp32", "tf32", "bf16")
"""Single precision, NVIDIA's TensorFloat-32, and bfloat16 by autocast."""


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
