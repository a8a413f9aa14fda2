"""Which call of torch is a rectifier, whatever its spelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RELU = "relu"
CLAMPED = "clamp"

# ReLU6 is a rectifier whose own derivative, zero where it is clipped at six, stays in force.
_EXACT: dict[Callable[..., Any], str] = {
    functional.relu: RELU,
    functional.relu_: RELU,
    functional.relu6: "relu6",
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
_SELECTING = {torch.where, torch.Tensor.where, torch.mul, torch.multiply, torch.Tensor.mul,
              torch.Tensor.multiply, torch.masked_fill, torch.Tensor.masked_fill}  # fmt: skip
_SELECTING_IN_PLACE = {torch.Tensor.mul_, torch.Tensor.multiply_, torch.Tensor.masked_fill_,
                       torch.Tensor.__setitem__}  # fmt: skip

Call = Callable[..., Any]

_COMPILED = {name + "_" * in_place for in_place in (0, 1) for name in (
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish",
    "softplus", "hardswish", "hardtanh", "threshold", "clamp", "clamp_min")}  # fmt: skip


def rectifier(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return which rectifier a call is by its name and bounds, or None.

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
        return "relu6" if lower == 0 and upper > 0 else None
    if func in _THRESHOLD:
        cut = [*args[1:3], *(kwargs[k] for k in ("threshold", "value") if k in kwargs)]
        return CLAMPED if all(_is_zero(bound) for bound in cut) else None
    if func in _CLAMP or func in _CLAMP_MIN:
        lower = args[1] if len(args) > 1 else kwargs.get("min")
        return CLAMPED if _is_zero(lower) else None
    if func in _LARGER:
        pair = [*args, *(kwargs[k] for k in ("input", "other") if k in kwargs)]
        both = len(pair) == 2 and all(isinstance(each, Tensor) for each in pair)
        return CLAMPED if both and any(_is_zero(each) for each in pair) else None
    return None


def selected(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return what a call selects from, as it is before the call; None if it selects nothing.

    ``torch.where(x > 0, x, 0)``, ``x * (x > 0)`` and ``x[x < 0] = 0`` are rectifiers by what they
    do, not by their name: see :func:`rectified`.
    """
    in_place = func in _SELECTING_IN_PLACE
    if not in_place and func not in _SELECTING:
        return None
    tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
    moved = [each for each in tensors if each.requires_grad]
    if len(moved) != 1:
        return None
    return moved[0].detach().clone() if in_place else moved[0].detach()


def rectified(before: Tensor, after: Any) -> bool:
    """Whether negative values became zero, of which there were some, and no other changed.

    Examples
    --------
    >>> x = torch.tensor([-1.0, 2.0])
    >>> rectified(x, x * (x > 0)), rectified(x, x * 1), rectified(x.abs(), x.abs() * 1)
    (True, False, False)
    """
    if not isinstance(after, Tensor) or after.shape != before.shape or not bool((before < 0).any()):
        return False
    return torch.equal(after.detach(), before.clamp_min(0))


def out_of_sight(network: nn.Module) -> str | None:
    """Return the name of a TorchScript module with rectifiers, whose calls nobody sees, or None.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> out_of_sight(network) is None
    True
    """
    name: str
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and _has_rectifier(module.inlined_graph):
            return name
    return None


def _has_rectifier(block: Any) -> bool:
    return any(
        node.kind().removeprefix("aten::") in _COMPILED or any(map(_has_rectifier, node.blocks()))
        for node in block.nodes()
    )


def _is_zero(bound: object) -> bool:
    if isinstance(bound, Tensor):
        return not bound.requires_grad and not bool(bound.any())
    return isinstance(bound, (int, float)) and bound == 0
