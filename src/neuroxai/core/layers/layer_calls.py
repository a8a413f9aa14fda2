"""All spatial layers that run in a forward pass, in the order the data flows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.layers.labels import CallLabels
from neuroxai.core.layers.layers import Layer, Visit, is_convolution, subtracts_mean
from neuroxai.core.layers.layout import Layouts, is_block

FUNCTIONAL = {
    torch.conv1d: "conv1d",
    torch.conv2d: "conv2d",
    torch.conv3d: "conv3d",
    torch.conv_transpose1d: "conv_transpose1d",
    torch.conv_transpose2d: "conv_transpose2d",
    torch.conv_transpose3d: "conv_transpose3d",
}
"""Convolutions that a network may call without a module."""


class LayerCalls:
    """The layers of one forward pass that have a map.

    A layer is a convolution, as a module or as a function; an instance or group norm, as the layers
    in front of one have no class activation map; or a transformer block, whose tokens are put on
    the grid they were made from. What has no map is listed with the reason.

    Parameters
    ----------
    network
        The network.
    dims
        The number of spatial axes of an image, 2 or 3.
    also
        Names of further modules to visit.

    Attributes
    ----------
    flow
        Labels of the convolutions, norms and blocks that ran, in the order data flows.
    without_map
        Name of what ran but has no map to the reason.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> calls = LayerCalls(network, dims=2)
    >>> with calls.visited(lambda layer, output, rearrange: print(layer.name, layer.shape)):
    ...     _ = network(torch.zeros(1, 1, 6, 5))
    0 (3, 4, 3)
    2 (2, 4, 3)
    """

    def __init__(self, network: nn.Module, dims: int, also: Collection[str] = ()) -> None:
        self.flow: list[str] = []
        self.without_map: dict[str, str] = {}
        self._also = also
        self._network = network
        self._dims = dims
        self._running: list[str] = []
        self._calls = CallLabels()
        self._layouts = Layouts(dims)

    @property
    def never_ran(self) -> tuple[str, ...]:
        """Convolutions, norms and blocks that the network has but did not use."""
        return tuple(
            name
            for name, module in self._network.named_modules()
            if _is_layer(module) and name not in self._calls
        )

    @contextmanager
    def visited(self, visit: Visit) -> Iterator[None]:
        """Context manager that calls ``visit`` with every layer that runs."""
        with ExitStack() as stack:
            for name, module in self._network.named_modules():
                before = module.register_forward_pre_hook(self._enter(name))
                stack.callback(before.remove)
                # Called after an exception too, which the network may catch; otherwise the stack
                # of running modules would be wrong.
                after = module.register_forward_hook(self._leave(name, visit), always_call=True)
                stack.callback(after.remove)
            stack.enter_context(_ConvolutionFunctions(self, visit))
            yield

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            self._running.append(name)

        return hook

    def _leave(self, name: str, visit: Visit) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            if self._running and self._running[-1] == name:
                self._running.pop()
            if not _is_layer(module) and name not in self._also:
                self._layouts.observe(module, output)
                if _is_attention(module):
                    self.without_map[name] = "attention over tokens or windows, no map of its own"
                return None
            flows = _is_layer(module)
            return self._visit(name, module, output, visit, flows=flows)

        return hook

    def visit_function(self, name: str, output: Tensor, visit: Visit) -> Tensor | None:
        """Visit a convolution that was called as a function outside of a convolution module."""
        owner = self._running[-1] if self._running else ""
        if owner and is_convolution(self._network.get_submodule(owner)):
            return None
        return self._visit(f"{owner}.{name}" if owner else name, None, output, visit)

    def _visit(
        self,
        name: str,
        module: nn.Module | None,
        output: Any,
        visit: Visit,
        *,
        flows: bool = True,
    ) -> Tensor | None:
        kind = name.rpartition(".")[2] if module is None else type(module).__name__
        label = self._calls.next(name)
        if not isinstance(output, Tensor):
            self.without_map[label] = f"returns a {type(output).__name__}, expected a tensor"
            return None
        spatial, rearrange = self._layouts.of(module, output)
        if not spatial:
            self.without_map[label] = (
                f"gives {tuple(output.shape[1:])} per sample, which does not have the image's "
                f"{self._dims} spatial axes"
            )
            return None
        values = output if rearrange is None else rearrange(output.detach())
        shape = tuple(values.shape[1:])
        if flows:
            self.flow.append(label)
            self._layouts.add(values)
        return visit(Layer(label, kind, shape), output, rearrange)


class _ConvolutionFunctions(FunctionCalls):
    """Visits convolutions that are called as functions."""

    def __init__(self, calls: LayerCalls, visit: Visit) -> None:
        super().__init__()
        self._calls = calls
        self._visit = visit

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func not in FUNCTIONAL:
            return result
        replaced = self._calls.visit_function(FUNCTIONAL[func], result, self._visit)
        return result if replaced is None else replaced


def _is_layer(module: nn.Module) -> bool:
    return is_convolution(module) or subtracts_mean(module) or is_block(module)


def _is_attention(module: nn.Module) -> bool:
    kind = type(module).__name__
    return isinstance(module, nn.MultiheadAttention) or kind.endswith(
        ("Attention", "SABlock", "AttentionBlock")
    )
