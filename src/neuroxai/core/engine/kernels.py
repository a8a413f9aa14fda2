"""Table of torch functions with a faster kernel, and the calls that each kernel supports.

Every function below has the parameters of the torch function it stands for, and returns None for a
call that it leaves to stock torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from neuroxai.core.engine.concatenation import concatenate_channels
from neuroxai.core.engine.converted_weights import ConvertedWeights
from neuroxai.core.engine.convolution import Geometry, Triple, convolve, convolve_transposed
from neuroxai.core.engine.function_calls import Binder
from neuroxai.core.engine.normalization import batch_norm, batch_statistics_norm, group_norm
from neuroxai.core.engine.upsampling import upsample_nearest


def triple(value: Any) -> Triple | None:
    """Return one integer, or a sequence of one or three, as three; None for anything else.

    Examples
    --------
    >>> triple(2), triple((1, 2, 3)), triple([4]), triple("same")
    ((2, 2, 2), (1, 2, 3), (4, 4, 4), None)
    """
    values = [value] if isinstance(value, Integral) else value
    if not isinstance(values, Sequence) or len(values) not in (1, 3):
        return None
    if not all(isinstance(each, Integral) for each in values):
        return None
    first, *rest = map(int, [*values] * 3 if len(values) == 1 else values)
    return (first, rest[0], rest[1])


def _conv3d(
    weights: ConvertedWeights,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    if not (_is_supported(input, weight, bias) and _is_weight(weight)):
        return None
    steps, spread = triple(stride), triple(dilation)
    if steps is None or spread is None:
        return None
    border = _padding(padding, spread, weight)
    if border is None:
        return None
    return convolve(input, weight, bias, Geometry(steps, border, spread, groups), weights)


def _padding(padding: Any, dilation: Triple, weight: Tensor) -> Triple | None:
    """Return the padding as numbers; None for the uneven one of ``same`` and an even kernel."""
    if not isinstance(padding, str):
        return triple(padding)
    if padding != "same":
        return (0, 0, 0) if padding == "valid" else None
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    return None if any(r % 2 for r in reach) else triple([r // 2 for r in reach])


def _conv_transpose3d(
    weights: ConvertedWeights,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    if not (_is_supported(input, weight, bias) and _is_weight(weight)):
        return None
    steps, border, spread = triple(stride), triple(padding), triple(dilation)
    extra = triple(output_padding)
    if steps is None or border is None or spread is None or extra is None:
        return None
    if any(e >= s for e, s in zip(extra, steps, strict=True)):
        return None
    at = Geometry(steps, border, spread, groups, extra)
    return convolve_transposed(input, weight, bias, at, weights)


def _batch_norm(
    weights: ConvertedWeights,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not _is_supported(input, weight, bias):
        return None
    if training:
        own = running_mean is None and running_var is None and input[:, 0].numel() > 1
        return batch_statistics_norm(input, weight, bias, eps) if own else None
    if running_mean is None or running_var is None or not input.requires_grad:
        return None
    return batch_norm(input, running_mean, running_var, weight, bias, eps)


def _instance_norm(
    weights: ConvertedWeights,
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
    if not (own and _is_supported(input, weight, bias) and input[0, 0].numel() > 1):
        return None
    return group_norm(input, input.shape[1], weight, bias, eps)


def _group_norm(
    weights: ConvertedWeights,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if not (_is_supported(input, weight, bias) and isinstance(num_groups, int)):
        return None
    if num_groups < 1 or input.shape[1] % num_groups:
        return None
    return group_norm(input, num_groups, weight, bias, eps)


def _interpolate(
    weights: ConvertedWeights,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor | None:
    if mode != "nearest" or align_corners or recompute_scale_factor or antialias:
        return None
    if not (_is_supported(input) and input.requires_grad):
        return None
    if not all(value is None or _is_numeric(value) for value in (size, scale_factor)):
        return None
    return upsample_nearest(input, size, scale_factor)


def _cat(weights: ConvertedWeights, tensors: Any, dim: int = 0) -> Tensor | None:
    if dim not in (1, -4) or not isinstance(tensors, (list, tuple)):
        return None
    if not all(map(_is_supported, tensors)) or not any(part.requires_grad for part in tensors):
        return None
    return concatenate_channels(tensors)


def _as_strided(weights: ConvertedWeights, input: Any, size: Any, stride: Any,
                storage_offset: Any = None) -> None:  # fmt: skip
    """Raise for a call that would read the memory of a channels-last tensor in another order."""
    if isinstance(input, Tensor) and input.dim() == 5 and not input.is_contiguous():
        raise RuntimeError("the network depends on the memory layout of a tensor")


def _is_weight(weight: Any) -> bool:
    return isinstance(weight, Tensor) and weight.dim() == 5


def _is_numeric(value: Any) -> bool:
    values = value if isinstance(value, Sequence) else [value]
    return all(isinstance(each, Real) for each in values)


def _is_supported(x: Any, weight: Any = None, bias: Any = None) -> bool:
    """Return whether a call has a 3D image in single precision on the CPU and frozen weights."""
    if type(x) is not Tensor or x.dim() != 5 or x.numel() == 0:
        return False
    return x.dtype == torch.float32 and x.device.type == "cpu" and all(
        part is None
        or (isinstance(part, Tensor) and part.dtype == x.dtype and not part.requires_grad)
        for part in (weight, bias)
    )  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A kernel and the binder of its parameters, without the first."""

    compute: Callable[..., Tensor | None]
    bind: Binder

    def __call__(
        self, weights: ConvertedWeights, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """Return the result of a call, or None if the kernel does not support it."""
        bound = self.bind(args, kwargs)
        return None if bound is None else self.compute(weights, **bound)


def _kernel(compute: Callable[..., Tensor | None]) -> Kernel:
    return Kernel(compute, Binder.of(compute, skip=1))


KERNELS: dict[Callable[..., Any], Kernel] = {
    functional.conv3d: _kernel(_conv3d),
    torch.ops.aten.conv3d.default: _kernel(_conv3d),
    functional.conv_transpose3d: _kernel(_conv_transpose3d),
    functional.batch_norm: _kernel(_batch_norm),
    functional.instance_norm: _kernel(_instance_norm),
    functional.group_norm: _kernel(_group_norm),
    functional.interpolate: _kernel(_interpolate),
    torch.cat: _kernel(_cat),
    torch.concat: _kernel(_cat),
    torch.concatenate: _kernel(_cat),
    torch.as_strided: _kernel(_as_strided),
    torch.Tensor.as_strided: _kernel(_as_strided),
}
"""Torch functions and the kernels that replace them."""
