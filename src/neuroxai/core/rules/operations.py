"""What the calls of a forward pass do to values, for rules that must know every operation."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.rules.backward_rule import Call

_IN_PLACE = "_"


class Operation(Enum):
    """What a call does to its differentiated input.

    Attributes
    ----------
    ACTIVATION
        An elementwise nonlinear function of one tensor.
    WEIGHTED
        A convolution or a linear layer.
    AVERAGE
        Sums of cells with fixed weights: mean, average pooling, interpolation.
    FIXED_NORM
        Batch norm with stored statistics.
    MOVE
        Values are moved, copied, joined or padded.
    SCALE
        A product or quotient with a constant.
    SUM
        A sum or difference of two differentiated tensors.
    SHIFT
        A sum with a constant.
    MAX_POOL
        The largest value of each neighborhood.
    OTHER
        Anything else.
    """

    ACTIVATION = "activation"
    WEIGHTED = "weighted"
    AVERAGE = "average"
    FIXED_NORM = "fixed_norm"
    MOVE = "move"
    SCALE = "scale"
    SUM = "sum"
    SHIFT = "shift"
    MAX_POOL = "max_pool"
    OTHER = "other"


_ELEMENTWISE = {"sigmoid", "tanh", "logsigmoid", "softsign", "tanhshrink", "hardsigmoid", "erf",
                "expit", "exp", "expm1", "log1p"}  # fmt: skip
_WEIGHTED = {f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)} | {
    "convolution", "linear", "addmm",
}  # fmt: skip
_AVERAGE = {"mean", "sum", "interpolate", "upsample"}
_AVERAGE |= {f"{kind}avg_pool{dims}d" for kind in ("", "adaptive_") for dims in (1, 2, 3)}
_AVERAGE |= {f"upsample_{kind}{dims}d" for kind in ("nearest", "linear", "bilinear", "trilinear")
             for dims in (1, 2, 3)}  # fmt: skip
_MOVE = {"cat", "concat", "concatenate", "view", "reshape", "flatten", "unflatten", "permute",
         "transpose", "movedim", "moveaxis", "swapaxes", "squeeze", "unsqueeze", "__getitem__",
         "getitem", "select", "narrow", "slice", "split", "chunk", "unbind", "stack", "contiguous",
         "clone", "to", "type", "type_as", "float", "double", "half", "bfloat16", "expand",
         "expand_as", "repeat", "pad", "constant_pad_nd", "dropout", "dropout1d", "dropout2d",
         "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "roll", "flip",
         "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "index_select", "alias", "view_as",
         "reshape_as", "_unsafe_view", "__get__", "identity", "requires_grad"}  # fmt: skip
_SCALE = {"mul", "multiply", "__mul__", "__rmul__", "div", "divide", "true_divide", "__truediv__",
          "neg", "negative"}  # fmt: skip
_SUM = {"add", "__add__", "__radd__", "__iadd__", "sub", "subtract", "__sub__", "__isub__"}
_MAX_POOL = {f"max_pool{dims}d" for dims in (1, 2, 3)}


def operation_of(call: Call) -> Operation:
    """Return what a call does to its differentiated input.

    Examples
    --------
    >>> x = torch.ones(1, 2, 3, requires_grad=True)
    >>> operation_of(Call(torch.add, (x, 2), {}, None))
    <Operation.SHIFT: 'shift'>
    >>> operation_of(Call(torch.mul, (x, x), {}, None))
    <Operation.OTHER: 'other'>
    """
    name = call.name.rstrip(_IN_PLACE) if not call.name.startswith("__") else call.name
    if call.activation is not None or name in _ELEMENTWISE:
        return Operation.ACTIVATION
    if name in _MAX_POOL:
        return Operation.MAX_POOL
    if name in _MOVE:
        return Operation.MOVE
    if name == "batch_norm":
        return Operation.FIXED_NORM if _has_statistics(call) else Operation.OTHER
    differentiated = _differentiated(call)
    if name in _WEIGHTED:
        return Operation.WEIGHTED if differentiated == 1 else Operation.OTHER
    if name in _AVERAGE:
        return Operation.AVERAGE
    if name in _SCALE:
        # A constant divided by a tensor is not linear in it.
        leads = isinstance(call.args[0], Tensor) and call.args[0].requires_grad
        linear = differentiated == 1 and (leads or "div" not in name)
        return Operation.SCALE if linear else Operation.OTHER
    if name in _SUM:
        return Operation.SUM if differentiated == 2 else Operation.SHIFT
    return Operation.OTHER


def _differentiated(call: Call) -> int:
    """Return how many of a call's arguments are differentiated."""
    given = (*call.args, *call.kwargs.values())
    return sum(isinstance(each, Tensor) and each.requires_grad for each in given)


def _has_statistics(call: Call) -> bool:
    """Return whether a batch norm uses stored statistics."""
    given = norm_arguments(call)
    return isinstance(given.get("running_mean"), Tensor) and not given.get("training", False)


def norm_arguments(call: Call) -> dict[str, Any]:
    """Return the arguments of a batch norm by name."""
    # torch.batch_norm takes weight and bias before the statistics, functional.batch_norm after.
    if call.function is torch.batch_norm or hasattr(call.function, "_schema"):
        names = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum",
                 "eps")  # fmt: skip
    else:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum",
                 "eps")  # fmt: skip
    return {**dict(zip(names, call.args, strict=False)), **call.kwargs}
