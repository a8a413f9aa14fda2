"""Faster CPU kernels for 3D networks, applied without editing the network.

A function mode sees the torch calls of a network and replaces those that a kernel supports; all
others run in stock torch. Under it, tensors have the channels last. A network that depends on the
memory layout (``view`` on a convolution's output) fails, is rerun in stock torch, and stays there.
"""

from __future__ import annotations

import platform
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neuroxai.core.engine.converted_weights import CHANNELS_LAST, ConvertedWeights
from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.engine.kernels import KERNELS
from neuroxai.core.engine.memory import is_out_of_memory
from neuroxai.core.engine.network_state import NetworkState
from neuroxai.core.engine.settings import PassSettings

VERIFIED_TORCH = ("2.13.0",)
"""Releases on which the kernels were compared with float64 and timed against stock torch.

The kernels call internals of torch and replace slow paths that another release may have changed, so
other releases run in stock torch. To add one, run ``tests/core/engine``,
``benchmarks/kernel_accuracy.py`` and ``benchmarks/convolutions.py`` on it (decision 33).
"""

_MACHINES = ("x86_64", "amd64")
"""Processors on which the kernels were timed."""

T = TypeVar("T")

_layout_bound: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Networks that failed on the fast path and succeeded in stock torch."""


def is_fast(x: Tensor, network: nn.Module, settings: PassSettings | None = None) -> bool:
    """Return whether passes of ``x`` through a network take the fast path."""
    settings = settings or PassSettings()
    return (
        x.dim() == 5
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and settings.precision == "fp32"
        and settings.fast_path
        and network not in _layout_bound
        and is_supported()
    )


def is_supported() -> bool:
    """Return whether the kernels were verified on this machine and release of torch."""
    release = str(torch.__version__).partition("+")[0]
    known = release in VERIFIED_TORCH and platform.machine().lower() in _MACHINES
    return known and bool(torch.backends.mkldnn.is_available())


def run_fast(
    network: nn.Module,
    x: Tensor,
    compute: Callable[[Tensor], T],
    settings: PassSettings | None = None,
    weights: ConvertedWeights | None = None,
) -> T:
    """Return ``compute(x)``, which runs ``x`` through a network, on the fast path if it applies.

    ``compute`` is called a second time, with the original ``x`` and in stock torch, if it fails on
    the fast path.

    Parameters
    ----------
    network
        A frozen network.
    x
        ``(B, C, *S)``.
    compute
        One or more passes.
    settings
        The settings of the passes.
    weights
        Converted weights to reuse from earlier passes.
    """
    if not is_fast(x, network, settings):
        return compute(x)
    before = NetworkState(network, weights=False)
    try:
        with FastPath(weights):
            return compute(x.contiguous(memory_format=CHANNELS_LAST))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        before.restore()  # what the failed pass left in the network, such as a cache
        result = compute(x)  # an error of the network itself is raised again here
        _layout_bound.add(network)
        return result


class FastPath(FunctionCalls):
    """Context manager that replaces torch calls by faster kernels.

    Backward passes need not run inside.

    Parameters
    ----------
    weights
        Converted weights to reuse from earlier passes.
    """

    def __init__(self, weights: ConvertedWeights | None = None) -> None:
        super().__init__()
        self._weights = ConvertedWeights() if weights is None else weights

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call, from its kernel if there is one that supports it."""
        kernel = KERNELS.get(func)
        result = None if kernel is None else kernel(self._weights, args, kwargs)
        return func(*args, **kwargs) if result is None else result
