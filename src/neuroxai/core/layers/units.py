"""Units: the filters of a network, each at the place where its answer goes out."""

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
from neuroxai.core.layers.layers import CallLabels

_DROPOUT = "torch.nn.modules.dropout"
_FOLLOWS = (
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.instancenorm",
    "torch.nn.modules.normalization",
    _DROPOUT,
)
"""Where the modules live that act on each filter by itself."""

_OFF_IS_ZERO = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
"""Zero stays zero, and what is below comes to little; unlike ELU, which falls silent at minus one,
Tanh, which answers with both signs, or Sigmoid and Softplus, which give nothing for zero."""


@dataclass(frozen=True)
class Units:
    """The filters of one convolution in one call.

    Attributes
    ----------
    layer
        The convolution's dotted name, with ``#2`` and so on from its second call.
    end
        The last of the norms and activations that follow it, each acting on one filter by itself,
        named alike; the convolution itself where none follows.
    rectified
        Whether the last of them that acts is a rectifier, so that zero means off. After a sigmoid
        it does not, nor after a norm behind the rectifier.
    shape
        ``(C, *S)`` of the end's output.
    """

    layer: str
    end: str
    rectified: bool
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many filters there are."""
        return self.shape[0]


def find_units(network: nn.Module, x: Tensor) -> list[Units]:
    """Return the units of every convolution that runs on ``x``, in the order the data flows.

    A convolution's raw output is not yet the filter's answer: a norm behind it may turn its sign.
    So a unit is taken after all norms and activations, spelled as modules, that follow the
    convolution directly. An activation spelled as a function comes after the unit; it keeps the
    order of its values.

    Parameters
    ----------
    network
        Any module; it is left as found.
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
    # Which units a tensor is the answer of, as long as somebody holds it.
    answers: dict[int, tuple[weakref.ref[Tensor], str]] = {}

    def visit(name: str, module: nn.Module, given: Any, output: Tensor) -> None:
        layer: str | None = None
        if isinstance(module, _ConvNd):
            if output.dim() != x.dim():
                return
            layer, rectified = name, False
        elif type(module).__module__ in _FOLLOWS and isinstance(given, Tensor):
            reference, origin = answers.get(id(given), (None, ""))
            if reference is None or reference() is not given:
                return
            layer = origin
            idle = type(module).__module__ == _DROPOUT
            rectified = found[origin].rectified if idle else _off_is_zero(module)
        else:
            return
        found[layer] = Units(layer, name, rectified, tuple(output.shape[1:]))
        answers[id(output)] = (weakref.ref(output), layer)

    with untouched(network), torch.no_grad(), _met(network, visit):
        network(upcast(x).clone())
    return list(found.values())


def _off_is_zero(module: nn.Module) -> bool:
    """Whether a module answers zero where a filter is off."""
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return module.min_val == 0
    if isinstance(module, nn.Threshold):
        return module.value == 0
    return isinstance(module, _OFF_IS_ZERO)


UnitVisit = Callable[[Units, Tensor], Tensor | None]


@contextmanager
def units_met(network: nn.Module, units: Collection[Units], visit: UnitVisit) -> Iterator[None]:
    """Call ``visit`` with units and their output as they answer; what it returns goes on instead.

    It is called in every pass inside. The hooks are gone on leaving, after an exception too.
    """
    ends = {unit.end: unit for unit in units}

    def answered(label: str, module: nn.Module, given: Any, output: Tensor) -> Tensor | None:
        return visit(ends[label], output) if label in ends else None

    with _met(network, answered):
        yield


@contextmanager
def _met(
    network: nn.Module, visit: Callable[[str, nn.Module, Any, Tensor], Tensor | None]
) -> Iterator[None]:
    """Tell of every convolution and every module without children that runs.

    A convolution whose weights are computed (weight norm) has a child and is one all the same.
    """
    calls = CallLabels()

    def begin(module: nn.Module, inputs: Any) -> None:
        nonlocal calls
        calls = CallLabels()  # a layer's first call in a pass is its first in every pass

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
