"""Every layer with a place in the image that runs in a forward pass, in the order data flows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.layers.layers import CallLabels, Layer, Visit, is_convolution, takes_mean_away
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
    """Meets every layer with a place in the image, for one forward pass.

    A layer is a convolution, as a module or as a function, an instance or group norm (in front of
    which there are no weights for a map), or a transformer block, whose tokens are laid on the
    grid they stand for. What has no place in the image is named with the reason.

    Parameters
    ----------
    network
        The network to be followed.
    dims
        How many axes an image has, 2 or 3.
    also
        Names of other modules to meet.

    Attributes
    ----------
    flow
        Labels of the convolutions and blocks that were met, in the order data flows.
    not_shown
        Name of what ran but has no map, and why.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> calls = LayerCalls(network, dims=2)
    >>> with calls.met(lambda layer, output, on_grid: print(layer.name, layer.shape)):
    ...     _ = network(torch.zeros(1, 1, 6, 5))
    0 (3, 4, 3)
    2 (2, 4, 3)
    """

    def __init__(self, network: nn.Module, dims: int, also: Collection[str] = ()) -> None:
        self.flow: list[str] = []
        self._also = also
        self.not_shown: dict[str, str] = {}
        self._network = network
        self._dims = dims
        self._running: list[str] = []
        self._calls = CallLabels()
        self._layouts = Layouts(network, dims)

    @property
    def never_ran(self) -> tuple[str, ...]:
        """Convolutions and blocks that the network has but did not use."""
        return tuple(
            name
            for name, module in self._network.named_modules()
            if _is_layer(module) and name not in self._calls
        )

    @contextmanager
    def met(self, visit: Visit) -> Iterator[None]:
        """Call ``visit`` with every layer that runs inside; a tensor it returns goes on instead."""
        with ExitStack() as stack:
            for name, module in self._network.named_modules():
                before = module.register_forward_pre_hook(self._enter(name))
                stack.callback(before.remove)
                # Called after an exception too, or the stack of running modules would be wrong
                # for a network that catches one.
                after = module.register_forward_hook(self._leave(name, visit), always_call=True)
                stack.callback(after.remove)
            stack.enter_context(_FunctionMode(self, visit))
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
                if _is_attention(module):
                    self.not_shown[name] = "attention over tokens or windows, no map of its own"
                return None
            return self._meet(name, type(module).__name__, output, visit, flows=_is_layer(module))

        return hook

    def function_called(self, name: str, output: Tensor, visit: Visit) -> Tensor | None:
        """Meet a convolution that was called as a function, outside of a convolution module."""
        owner = self._running[-1] if self._running else ""
        if owner and is_convolution(self._network.get_submodule(owner)):
            return None
        return self._meet(f"{owner}.{name}" if owner else name, name, output, visit)

    def _meet(
        self, name: str, kind: str, output: Any, visit: Visit, *, flows: bool = True
    ) -> Tensor | None:
        label = self._calls.next(name)
        if not isinstance(output, Tensor):
            self.not_shown[label] = f"returns a {type(output).__name__}, expected a tensor"
            return None
        fits, on_grid = self._layouts.of(name, kind, output)
        if not fits:
            self.not_shown[label] = (
                f"gives {tuple(output.shape[1:])} per sample, which is not laid out over the "
                f"image's {self._dims} axes"
            )
            return None
        laid = output if on_grid is None else on_grid(output.detach())
        shape = tuple(laid.shape[1:])
        if flows:
            self.flow.append(label)
            self._layouts.saw(shape[1:])
        return visit(Layer(label, kind, shape), output, on_grid)


class _FunctionMode(FunctionCalls):
    """Sees convolutions that no module stands for."""

    def __init__(self, calls: LayerCalls, visit: Visit) -> None:
        super().__init__()
        self._calls = calls
        self._visit = visit

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func not in FUNCTIONAL:
            return result
        passed_on = self._calls.function_called(FUNCTIONAL[func], result, self._visit)
        return result if passed_on is None else passed_on


def _is_layer(module: nn.Module) -> bool:
    return is_convolution(module) or takes_mean_away(module) or is_block(type(module).__name__)


def _is_attention(module: nn.Module) -> bool:
    kind = type(module).__name__
    return isinstance(module, nn.MultiheadAttention) or kind.endswith(
        ("Attention", "SABlock", "AttentionBlock")
    )
