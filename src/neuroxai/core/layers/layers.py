"""The layers of a network: their names, their calls in a forward pass, and hooks on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.hooks import RemovableHandle

from neuroxai.core.errors import LayerError, suggestion
from neuroxai.core.layers.labels import (
    AUTO,
    CallLabels,
    format_grid,
    grid_of,
    input_label,
    is_auto,
    is_input,
    module_name,
    without_grid,
)
from neuroxai.core.layers.layout import Layouts, Rearrange, TokenOrder


@dataclass(frozen=True)
class Layer:
    """One call of a layer in a forward pass.

    Attributes
    ----------
    name
        The module's dotted name; ``:input`` after it for the input of a convolution; ``#2`` and so
        on from its second call; and ``@14x14`` if its grid was given.
    kind
        The module's class.
    shape
        ``(C, *S)`` of its output, or of its input.
    leading
        The number of tokens without a cell, class and register tokens, that were left out.
    is_block
        Whether it maps cells to cells of the same shape by linear layers, as a block of a
        transformer does.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    leading: int = 0
    is_block: bool = False


def check_names(network: nn.Module, names: Sequence[str]) -> None:
    """Raise if a network does not have a layer.

    Raises
    ------
    LayerError
        Suggesting the nearest name; or if the input of another module than a convolution is named.
    """
    known = {name for name, _ in network.named_modules() if name}
    convolutions = [name for name, module in network.named_modules() if is_convolution(module)]
    for name in names:
        # All members of an ensemble, as an explanation names their layer.
        module = module_name(name).replace(".*.", ".0.", 1)
        if not is_auto(name) and module not in known:
            hint = suggestion(name, known)
            if hint.startswith("known"):
                hint = "convolutions: " + ", ".join(convolutions)
            raise LayerError(f"layer {name!r} does not exist: {hint}")
        if is_input(name) and grid_of(name) is not None:
            raise LayerError(
                f"layer {without_grid(name)!r} is the input of a convolution, whose axes are "
                "known: leave the layer grid out"
            )
        if is_input(name) and module not in convolutions:
            raise LayerError(
                f"layer {name!r} is the input of a {type(network.get_submodule(module)).__name__}, "
                "expected that of a convolution: name the layer whose output it is"
            )


def is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution."""
    return isinstance(module, _ConvNd)


def _has_several_convolutions(module: nn.Module) -> bool:
    return sum(is_convolution(part) for part in module.modules()) > 1


def _contains_linear(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Linear) for part in module.modules() if part is not module)


def subtracts_mean(module: nn.Module) -> bool:
    """Return whether a module normalizes by the statistics of its own input.

    The gradients at its input sum to zero over the image (for a group norm, over the image and the
    group's channels; for a batch norm without running statistics, over the batch), and so do the
    channel weights of a class activation map.
    """
    if isinstance(module, _BatchNorm):
        return module.running_mean is None
    return isinstance(module, (_InstanceNorm, nn.GroupNorm))


def layer_grid(network: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the grid that layer maps are interpolated to before they are cropped to ``shape``.

    It is the image's own, unless the network pads images at the end of their axes and declares
    this by a method ``padded_shape``.
    """
    padded_shape = getattr(network, "padded_shape", None)
    grid = padded_shape(tuple(shape)) if callable(padded_shape) else shape
    return tuple(int(n) for n in grid)


Visit = Callable[[Layer, Tensor, Rearrange | None], Tensor | None]
"""Called with a layer, its output, and how to rearrange the output as ``(B, C, *S)`` if it is not.
A tensor it returns replaces the output."""


class LayerHooks:
    """Context manager with forward hooks on layers, for one forward pass.

    The hooks are removed on leaving, after an exception too.

    Parameters
    ----------
    network
        The network.
    names
        The layers to hook in addition to all convolutions and all norms over their input's own
        statistics; ``auto`` adds every module that contains several convolutions, the input of
        every convolution, and every block that maps cells to cells by linear layers.
    visit
        Called with every hooked layer and its output, in the order the data flows.
    dims
        The number of spatial axes of an image, 2 or 3.

    Attributes
    ----------
    unplaced
        Names of blocks whose tokens have an unknown grid, to the number of layers visited before.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], visit: Visit, dims: int) -> None:
        self._network = network
        self._dims = dims
        self._layouts = Layouts(dims)
        self._names = {without_grid(name).partition("#")[0] for name in names} - {AUTO}
        self._grids = _given_grids(names)
        self._batch: int | None = None
        self._hooks_blocks = any(map(is_auto, names))
        self._visit = visit
        self._calls = CallLabels()
        self._linear_on_cells: set[str] = set()
        self._visited = 0
        self.unplaced: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> LayerHooks:
        if not isinstance(self._network, torch.jit.ScriptModule):  # which takes no hooks
            self._handles.append(self._network.register_forward_pre_hook(self._begin))
        for name, module in self._network.named_modules():
            if self._is_hooked(name, module):
                hook = self._hook(name)
                self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
            elif type(module) is nn.LayerNorm:
                self._handles.append(module.register_forward_hook(self._observe))
            if self._hooks_blocks and isinstance(module, nn.Linear):
                self._handles.append(module.register_forward_hook(self._note_linear(name)))
            named = input_label(name) in self._names
            if named or (self._hooks_blocks and is_convolution(module)):
                before = self._input_hook(input_label(name), named=named)
                self._handles.append(module.register_forward_pre_hook(before))
        return self

    def _is_hooked(self, name: str, module: nn.Module) -> bool:
        if name in self._names or is_convolution(module) or subtracts_mean(module):
            return True
        if not (self._hooks_blocks and name):
            return False
        return _has_several_convolutions(module) or _contains_linear(module)

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        image = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        self._batch = None if image is None else len(image)
        if image is not None and image.dim() == self._dims + 2:
            self._layouts.add(image)

    def _input_hook(self, name: str, *, named: bool) -> Callable[[nn.Module, Any], Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            values = inputs[0]
            if values.dim() != self._dims + 2:  # an image without a batch, or of other axes
                return None
            if not (named or values.requires_grad or not torch.is_grad_enabled()):
                return None  # the image itself, before the first layer
            label = self._calls.next(name)
            layer = Layer(label, type(module).__name__, tuple(values.shape[1:]))
            self._visited += 1
            continued = self._visit(layer, values, None)
            return None if continued is None else (continued, *inputs[1:])

        return hook

    def _observe(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._layouts.observe(module, output)

    def _note_linear(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and prod(output.shape[1:-1]) > 1:
                self._linear_on_cells.add(name)

        return hook

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> Any:
            given = [each for each in (*inputs, *named.values()) if isinstance(each, Tensor)]
            block = self._hooks_blocks and self._is_block(name, given, _first(output))
            if isinstance(output, Tensor):
                return self._layer(name, module, output, block=block)
            if name not in self._names and not block:
                return None
            if _only_first_is_a_tensor(output):  # such as the blocks of Hugging Face
                continued = self._layer(name, module, output[0], block=block)
                return None if continued is None else (continued, *output[1:])
            if name not in self._names:
                return None
            raise LayerError(
                f"layer {name!r} returns a {type(output).__name__}, expected a tensor: "
                "name a layer inside it"
            )

        return hook

    def _is_block(self, name: str, given: Sequence[Tensor], output: Any) -> bool:
        """Return whether a call maps cells to cells of the same shape by linear layers."""
        if not (isinstance(output, Tensor) and given and given[0].shape == output.shape):
            return False
        if len(output) != self._batch or prod(output.shape[1:-1]) == 1:
            return False
        return any(linear.startswith(f"{name}.") for linear in self._linear_on_cells)

    def _layer(
        self, name: str, module: nn.Module, output: Tensor, *, block: bool = False
    ) -> Tensor | None:
        spatial, rearrange = self._placed(name, module, output, block=block)
        if not spatial and name not in self._names:
            if block:
                self.unplaced[name] = self._visited
            return None
        if not spatial and output.dim() in (3, self._dims + 2):
            raise LayerError(
                f"layer {name!r} gives {tuple(output.shape[1:])} per sample, and it is unknown "
                f"which of these axes are spatial: {give_grid(self._dims)}, or name a layer inside "
                "it or before it"
            )
        values = output if rearrange is None else rearrange(output.detach())
        if spatial:
            self._layouts.add(values)
        leading = rearrange.leading if isinstance(rearrange, TokenOrder) else 0
        kind, shape = type(module).__name__, tuple(values.shape[1:])
        layer = Layer(self._calls.next(name), kind, shape, leading, block and prod(shape[1:]) > 1)
        self._visited += 1
        return self._visit(layer, output, rearrange)

    def _placed(
        self, name: str, module: nn.Module, output: Tensor, *, block: bool
    ) -> tuple[bool, Rearrange | None]:
        """Return whether an output has the image's spatial axes, and how to rearrange it."""
        grid = self._grids.get(name)
        if grid is not None:
            return True, self._on_grid(name, module, output, grid)
        spatial, rearrange = self._layouts.of(module, output)
        default = self._grids.get(AUTO)
        if not spatial and block and default is not None:
            try:
                return True, self._layouts.on_grid(module, output, default)
            except LayerError:  # a block of another stage
                pass
        return spatial, rearrange

    def _on_grid(
        self, name: str, module: nn.Module, output: Tensor, grid: tuple[int, ...]
    ) -> Rearrange | None:
        try:
            if self._batch not in (None, len(output)):
                raise LayerError(
                    f"it gives {len(output)} rows for {self._batch} image(s), as attention in "
                    "windows does, so it has no layer grid"
                )
            found = self._layouts.on_grid(module, output, grid)
            spatial, known = self._layouts.of(module, output)
            shown = _grid_in(known, output) if spatial else grid
            if shown != grid:
                raise LayerError(
                    f"the layers before it show the grid {format_grid(shown)}, and not "
                    f"{format_grid(grid)}: leave the layer grid out"
                )
            return found
        except LayerError as error:
            raise LayerError(f"layer {name!r}: {error}") from None


def give_grid(dims: int) -> str:
    """Return how the grid of a layer is given, for an error."""
    example = format_grid((14, 14) if dims == 2 else (6, 7, 5))
    return f"give its grid, for example --layer-grid {example} (layer_grid= in Python)"


def _grid_in(rearrange: Rearrange | None, output: Tensor) -> tuple[int, ...]:
    values = output.detach()
    return tuple((values if rearrange is None else rearrange(values)).shape[2:])


def _given_grids(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the grids that labels give their layers.

    Raises
    ------
    LayerError
        If two labels give different grids of a layer.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        grid, plain = grid_of(name), without_grid(name).partition("#")[0]
        if grid is not None and found.setdefault(plain, grid) != grid:
            raise LayerError(
                f"layer {plain!r} is requested on the grids {format_grid(found[plain])} and "
                f"{format_grid(grid)}: request one at a time"
            )
    return found


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) and output else output


def _only_first_is_a_tensor(output: Any) -> bool:
    return (
        type(output) is tuple
        and len(output) > 0
        and isinstance(output[0], Tensor)
        and not any(isinstance(other, Tensor) for other in output[1:])
    )
