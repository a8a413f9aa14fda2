"""Units: the filters of a network, each at its last norm or activation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from neuroxai.core.engine.precision import upcast
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.layers.labels import CallLabels

_DROPOUT = "torch.nn.modules.dropout"
_CHANNELWISE = (
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.instancenorm",
    "torch.nn.modules.normalization",
    _DROPOUT,
)
"""Modules of torch whose classes act on each filter by itself."""

_ZERO_IS_INACTIVE = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish
)  # fmt: skip
"""Activations that map zero to zero and negative values close to it. ELU saturates at minus one,
Tanh has both signs, and Sigmoid and Softplus do not map zero to zero."""


@dataclass(frozen=True)
class Units:
    """The filters of one convolution in one call.

    Attributes
    ----------
    layer
        The convolution's dotted name, with ``#2`` and so on from its second call.
    end
        The last of the channelwise norms and activations that follow it, named alike; the
        convolution itself if none follows.
    rectified
        Whether zero means inactive, because the last of them is a rectifier. It does not after a
        sigmoid, or after a norm behind the rectifier.
    shape
        ``(C, *S)`` of the end's output.
    """

    layer: str
    end: str
    rectified: bool
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of filters."""
        return self.shape[0]


def find_units(network: nn.Module, x: Tensor) -> list[Units]:
    """Return the units of every convolution that runs on ``x``, in the order the data flows.

    The raw output of a convolution is not yet the filter's response, as a norm behind it may change
    its sign. A unit is therefore taken after all channelwise norms and activations that follow the
    convolution directly as modules. An activation called as a function comes after the unit; it
    keeps the order of its values.

    Parameters
    ----------
    network
        Any module; it is restored.
    x
        ``(B, C, *S)``.

    Examples
    --------
    >>> first, last = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 1)
    >>> network = nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU(), last)
    >>> units = find_units(network, torch.rand(1, 1, 6, 5))
    >>> [(unit.layer, unit.end, unit.rectified) for unit in units]
    [('0', '2', True), ('3', '3', False)]
    """
    found: dict[str, Units] = {}
    # The convolution whose response a tensor is, for as long as the tensor exists.
    responses: dict[int, tuple[weakref.ref[Tensor], str]] = {}

    def visit(name: str, module: nn.Module, given: Any, output: Tensor) -> None:
        layer: str | None = None
        if isinstance(module, _ConvNd):
            if output.dim() != x.dim():
                return
            layer, rectified = name, False
        elif type(module).__module__ in _CHANNELWISE and isinstance(given, Tensor):
            reference, origin = responses.get(id(given), (None, ""))
            if reference is None or reference() is not given:
                return
            layer = origin
            keeps = type(module).__module__ == _DROPOUT
            rectified = found[origin].rectified if keeps else _zero_is_inactive(module)
        else:
            return
        found[layer] = Units(layer, name, rectified, tuple(output.shape[1:]))
        responses[id(output)] = (weakref.ref(output), layer)

    with untouched(network), torch.no_grad(), _visited(network, visit):
        network(upcast(x).clone())
    return list(found.values())


def _zero_is_inactive(module: nn.Module) -> bool:
    """Return whether a module's output is zero where a filter is inactive."""
    if isinstance(module, nn.Hardtanh):  # the base class of ReLU6
        return module.min_val == 0
    if isinstance(module, nn.Threshold):
        return module.value == 0
    return isinstance(module, _ZERO_IS_INACTIVE)


UnitVisit = Callable[[Units, Tensor], Tensor | None]
"""Called with units and their output; a tensor it returns replaces the output."""


@contextmanager
def units_visited(network: nn.Module, units: Collection[Units], visit: UnitVisit) -> Iterator[None]:
    """Context manager that calls ``visit`` with units in every forward pass.

    The hooks are removed on leaving, after an exception too.
    """
    ends = {unit.end: unit for unit in units}

    def visit_end(label: str, module: nn.Module, given: Any, output: Tensor) -> Tensor | None:
        return visit(ends[label], output) if label in ends else None

    with _visited(network, visit_end):
        yield


@contextmanager
def _visited(
    network: nn.Module, visit: Callable[[str, nn.Module, Any, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call ``visit`` with every convolution and every module without children that runs.

    A convolution with computed weights (weight norm) has a child.
    """
    calls = CallLabels()

    def begin(module: nn.Module, inputs: Any) -> None:
        nonlocal calls
        calls = CallLabels()  # labels count the calls of one forward pass

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
            label = calls.next(name)
            if not isinstance(output, Tensor):
                return None
            return visit(label, module, inputs[0] if inputs else None, output)

        return hook

    with ExitStack() as stack:
        stack.callback(network.register_forward_pre_hook(begin).remove)
        for name, module in network.named_modules():
            if isinstance(module, _ConvNd) or not any(True for _ in module.children()):
                stack.callback(module.register_forward_hook(hook_for(name)).remove)
        yield
