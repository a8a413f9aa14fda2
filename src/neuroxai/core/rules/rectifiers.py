"""Activation functions among the calls of torch functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RELU = "relu"
CLAMP = "clamp"
"""ReLU by another name: a clamp, maximum, threshold or selection by sign at zero."""
RELU6 = "relu6"

_EXACT: dict[Callable[..., Any], str] = {
    functional.relu: RELU,
    functional.relu_: RELU,
    functional.relu6: RELU6,
    torch.relu: RELU,
    torch.relu_: RELU,
    torch.Tensor.relu: RELU,
    torch.Tensor.relu_: RELU,
}
_EXTENDED: dict[Callable[..., Any], str] = {
    functional.leaky_relu: "leaky_relu",
    functional.leaky_relu_: "leaky_relu",
    functional.prelu: "prelu",
    torch.prelu: "prelu",
    torch.Tensor.prelu: "prelu",
    functional.rrelu: "rrelu",
    functional.rrelu_: "rrelu",
    torch.rrelu: "rrelu",
    torch.rrelu_: "rrelu",
    functional.elu: "elu",
    functional.elu_: "elu",
    functional.celu: "celu",
    torch.celu: "celu",
    torch.celu_: "celu",
    functional.selu: "selu",
    torch.selu: "selu",
    torch.selu_: "selu",
    functional.gelu: "gelu",
    functional.silu: "silu",
    functional.mish: "mish",
    functional.softplus: "softplus",
    functional.hardswish: "hardswish",
}
_HARDTANH = {functional.hardtanh, functional.hardtanh_}
_THRESHOLD = {functional.threshold, torch.threshold, torch.threshold_}
_CLAMP = {torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_, torch.clip,
          torch.Tensor.clip, torch.Tensor.clip_}  # fmt: skip
_CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, torch.Tensor.clamp_min, torch.Tensor.clamp_min_}
_LARGER = {torch.maximum, torch.Tensor.maximum, torch.max, torch.Tensor.max}
Call = Callable[..., Any]

_TORCHSCRIPT = {name + "_" * in_place for in_place in (0, 1) for name in (
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish",
    "softplus", "hardswish", "hardtanh", "threshold", "clamp", "clamp_min")}  # fmt: skip


def rectifier(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return the name of the activation function that a call is by its name and bounds, or None.

    Examples
    --------
    >>> x = torch.tensor([-1.0, 2.0])
    >>> rectifier(torch.clamp, (x,), {"min": 0}), rectifier(torch.clamp, (x,), {"min": 1})
    ('clamp', None)
    """
    if func in _EXACT:
        return _EXACT[func]
    if func in _EXTENDED:
        return _EXTENDED[func]
    if func in _HARDTANH:
        lower = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
        upper = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
        return RELU6 if lower == 0 and upper > 0 else None
    if func in _THRESHOLD:
        cut = [*args[1:3], *(kwargs[k] for k in ("threshold", "value") if k in kwargs)]
        return CLAMP if all(is_zero(bound) for bound in cut) else None
    if func in _CLAMP or func in _CLAMP_MIN:
        lower = args[1] if len(args) > 1 else kwargs.get("min")
        return CLAMP if is_zero(lower) else None
    if func in _LARGER:
        pair = [*args, *(kwargs[k] for k in ("input", "other") if k in kwargs)]
        both = len(pair) == 2 and all(isinstance(each, Tensor) for each in pair)
        return CLAMP if both and any(is_zero(each) for each in pair) else None
    return None


def script_with_rectifier(network: nn.Module) -> str | None:
    """Return the name of a TorchScript module that contains a rectifier, or None.

    The calls inside a TorchScript module cannot be observed.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> script_with_rectifier(network) is None
    True
    """
    name: str
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and _has_rectifier(module.inlined_graph):
            return name
    return None


def _has_rectifier(block: Any) -> bool:
    return any(
        node.kind().removeprefix("aten::") in _TORCHSCRIPT
        or any(map(_has_rectifier, node.blocks()))
        for node in block.nodes()
    )


def is_zero(bound: object) -> bool:
    """Return whether a number or a constant tensor is zero everywhere."""
    if isinstance(bound, Tensor):
        return not bound.requires_grad and not bool(bound.any())
    return isinstance(bound, (int, float)) and bound == 0
