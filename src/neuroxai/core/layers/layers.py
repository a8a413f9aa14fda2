"""The layers of a network: which ran, in which order, with which shape, and one of them by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.hooks import RemovableHandle

from neuroxai.core.errors import LayerError, suggestion
from neuroxai.core.layers.layout import Layouts, OnGrid

AUTO = "auto"
"""The layer that :func:`auto_layer` chooses."""


@dataclass(frozen=True)
class Layer:
    """One call of a layer in a forward pass.

    Attributes
    ----------
    name
        The module's dotted name; ``#2`` and so on is appended from a module's second call.
    kind
        The module's class.
    shape
        ``(C, *S)`` of its output.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


def check_names(network: nn.Module, names: Sequence[str]) -> None:
    """Refuse a layer that the network does not have.

    Raises
    ------
    LayerError
        Naming the nearest layer.
    """
    known = {name for name, _ in network.named_modules() if name}
    for name in names:
        if name != AUTO and name.partition("#")[0] not in known:
            convolutions = [n for n, m in network.named_modules() if is_convolution(m)]
            hint = suggestion(name, known)
            if hint.startswith("known"):
                hint = "convolutions: " + ", ".join(convolutions)
            raise LayerError(f"layer {name!r} does not exist: {hint}")


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is a convolution."""
    return isinstance(module, _ConvNd)


def _holds_several(module: nn.Module) -> bool:
    return sum(is_convolution(part) for part in module.modules()) > 1


def takes_mean_away(module: nn.Module) -> bool:
    """Whether a module norms an image by its own statistics.

    The gradients of what it is given then add up to zero over the image (for a group norm, over
    the image and the group's channels; for a batch norm without statistics, over the batch), and
    so do a class activation map's weights.
    """
    if isinstance(module, _BatchNorm):
        return module.running_mean is None
    return isinstance(module, (_InstanceNorm, nn.GroupNorm))


def layer_grid(network: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the grid that maps of layers are laid on before they are cut to an image's ``shape``.

    It is the image's own, unless the network pads images at the end of their axes and says so with
    a method ``padded_shape``.
    """
    says = getattr(network, "padded_shape", None)
    return tuple(int(n) for n in (says(tuple(shape)) if callable(says) else shape))


Visit = Callable[[Layer, Tensor, OnGrid | None], Tensor | None]
"""Told of a layer, its output, and how to lay that out as ``(B, C, *S)`` if it is not so."""


class CallLabels:
    """Labels the calls of modules and functions: ``conv``, then ``conv#2``, ``conv#3``.

    Examples
    --------
    >>> labels = CallLabels()
    >>> labels.next("a"), labels.next("b"), labels.next("a"), "b" in labels
    ('a', 'b', 'a#2', True)
    """

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def __contains__(self, name: str) -> bool:
        return name in self._calls

    def next(self, name: str) -> str:
        """Count one more call of ``name`` and return its label."""
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"


class LayerHooks:
    """Forward hooks on layers, for one forward pass; removed on exit, after an exception too.

    Parameters
    ----------
    network
        The network to look into.
    names
        The layers to hook beside every convolution, and every norm over own statistics; for
        ``auto`` also every part of the network that holds several convolutions.
    visit
        Called with every hooked layer and its output, in the order the data flows; a tensor it
        returns goes on through the network instead.
    dims
        How many axes an image has, 2 or 3.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], visit: Visit, dims: int) -> None:
        self._network = network
        self._dims = dims
        self._layouts = Layouts(network, dims)
        self._modules = {name.partition("#")[0] for name in names} - {AUTO}
        self._joints = AUTO in names
        self._visit = visit
        self._calls = CallLabels()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> LayerHooks:
        for name, module in self._network.named_modules():
            joint = self._joints and name and _holds_several(module)
            if joint or name in self._modules or is_convolution(module) or takes_mean_away(module):
                self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                if name in self._modules:
                    raise LayerError(
                        f"layer {name!r} returns a {type(output).__name__}, expected a tensor: "
                        "name a layer inside it"
                    )
                return None
            fits, on_grid = self._layouts.of(name, type(module).__name__, output)
            if not fits and name not in self._modules:
                return None
            if not fits and output.dim() == self._dims + 2:
                raise LayerError(
                    f"layer {name!r} gives {tuple(output.shape[1:])} per sample, and nothing tells "
                    "which of these axes are space: name a layer inside it"
                )
            laid = output if on_grid is None else on_grid(output.detach())
            if fits:
                self._layouts.saw(tuple(laid.shape[2:]))
            layer = Layer(self._calls.next(name), type(module).__name__, tuple(laid.shape[1:]))
            return self._visit(layer, output, on_grid)

        return hook
