"""Inputs and outputs of a network, measured by running it on random images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import NETWORK_ERRORS, ModelError

_EDGES: Mapping[int, tuple[int, ...]] = {
    2: (32, 64, 48, 96, 112, 128, 224, 256, 299, 384, 512),
    3: (32, 64, 48, 96, 128),
}
"""Edges of the images to try, per number of dimensions: those that published networks have."""
_LARGEST_DOUBLED = {2: 512, 3: 64}
"""Largest edge that is tried at twice its length: 128³ voxels fit into any memory."""
_USUAL_CHANNELS = (1, 2, 3, 4, 5)
_ALIKE = ("View", "Squeeze", "Unsqueeze", "Permute", "Transpose", "ToCopy", "Alias", "Slice",
          "Clone", "Select")  # fmt: skip
"""Operations that move values and leave them as they are, as autograd names them."""


@dataclass(frozen=True)
class Measured:
    """What a network's answers to random images tell.

    Attributes
    ----------
    input_shape
        Shape ``(1, C, *S)`` of an image that the network takes.
    output_shape
        Shape of its output; None if it has several that differ in shape.
    outputs
        Key and shape of every output, if there are several.
    output_key
        Key of the output of ``output_shape``, if there are several; None if it is ambiguous.
    divisor
        Number that must divide every axis of the image.
    fixed
        Whether the network takes the size of ``input_shape`` only.
    activation
        ``softmax``, ``log_softmax`` or ``sigmoid`` where it is the network's last operation.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...] | None
    outputs: Mapping[int | str, tuple[int, ...]]
    output_key: int | str | None
    divisor: int
    fixed: bool
    activation: str | None

    @property
    def dimensions(self) -> int:
        """Number of spatial axes."""
        return len(self.input_shape) - 2

    @property
    def task(self) -> str | None:
        """``segmentation`` or ``classification``, None where the output is unknown."""
        if self.output_shape is None:
            return None
        return "classification" if len(self.output_shape) == 2 else "segmentation"


def measure(network: nn.Module, shape: Sequence[int | None] | None = None) -> Measured:
    """Run a network on random images of several sizes; its weights and state are unchanged.

    Numbers of channels are those of its convolutions and one to five. The first operations of a
    network reject all but one of them.

    Parameters
    ----------
    network
        Any module that takes one image.
    shape
        Channels and sizes ``(C, *S)`` of an image that the network takes, None for axes of any
        length. By default they are searched for.

    Raises
    ------
    ModelError
        If the network runs on none of the images, or on several numbers of channels.

    Examples
    --------
    >>> found = measure(nn.Conv3d(4, 2, 3, padding=1))
    >>> found.input_shape, found.output_shape, found.divisor
    ((1, 4, 32, 32, 32), (1, 2, 32, 32, 32), 1)
    """
    with untouched(network):
        size, first = _first_answer(network, shape)
        key, output = first.selected
        free = [axis for axis, edge in enumerate(shape[1:]) if edge is None] if shape else None
        divisor, fixed = _divisor(network, size, first, free)
        return Measured(
            size,
            None if output is None else tuple(output.shape),
            {name: tuple(value.shape) for name, value in first.outputs.items()},
            key,
            divisor,
            fixed,
            None if output is None else _last_activation(output),
        )


@dataclass(frozen=True, eq=False)
class _Answer:
    """Output of a network: one tensor with the key None, or several."""

    size: tuple[int, ...]
    only: Tensor | None
    outputs: Mapping[int | str, Tensor]

    @property
    def selected(self) -> tuple[int | str | None, Tensor | None]:
        """Key and value of the only output, or of the only one with a voxel per voxel.

        The key is None where several outputs have the same shape.
        """
        if self.only is not None:
            return None, self.only
        full = {k: v for k, v in self.outputs.items() if tuple(v.shape[2:]) == self.size}
        rows = {k: v for k, v in self.outputs.items() if v.dim() == 2}
        for group in (full, rows):
            if len(group) == 1:
                return next(iter(group.items()))
            if group:
                alike = len({value.shape for value in group.values()}) == 1
                return None, next(iter(group.values())) if alike else None
        return None, None

    @property
    def loss(self) -> tuple[int, ...] | None:
        """Voxels by which the output is smaller than the image; None where it has no grid."""
        output = self.selected[1]
        if output is None or output.dim() == 2:
            return None
        return tuple(a - b for a, b in zip(self.size, output.shape[2:], strict=True))


def _first_answer(
    network: nn.Module, shape: Sequence[int | None] | None
) -> tuple[tuple[int, ...], _Answer]:
    reason = ""
    for channels, sizes in _attempts(network, shape):
        found: dict[int, _Answer] = {}
        for count in channels:
            try:
                with torch.enable_grad():  # the last operation is read from the graph
                    found[count] = _run(network, (1, count, *sizes))
            except (*NETWORK_ERRORS, KeyError, AttributeError) as error:
                reason = reason or (str(error).strip().splitlines() or [type(error).__name__])[0]
        if len(found) > 1:
            raise ModelError(
                f"{type(network).__name__}: runs on images of {_listed(found)} channels; give the "
                f"shape of its input, for example --shape {'x'.join(map(str, (4, *sizes)))}"
            )
        for count, answer in found.items():
            return (1, count, *sizes), answer
    if shape is not None:
        asked = "×".join("any" if edge is None else str(edge) for edge in shape)
        raise ModelError(
            f"{type(network).__name__}: does not run on an image of {asked} ({reason})"
        )
    raise ModelError(
        f"{type(network).__name__}: runs on none of the images that were tried ({reason}); give "
        "the shape of its input, for example --shape 4x128x128x64"
    )


def _attempts(
    network: nn.Module, shape: Sequence[int | None] | None
) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """Yield numbers of channels, and the size of an image to try them at."""
    if shape is not None:
        channels, sizes = [int(shape[0] or 1)], shape[1:]
        edges = _EDGES[len(sizes)] if None in sizes else (0,)
        for edge in edges:
            yield channels, tuple(edge if size is None else size for size in sizes)
        return
    for dimensions in (3, 2):
        kernels = [p.shape for p in network.parameters() if p.dim() == dimensions + 2]
        own = [
            module.in_channels for module in network.modules()
            if isinstance(module, nn.modules.conv._ConvNd)
            and len(module.kernel_size) == dimensions
        ]  # fmt: skip
        if not kernels and not own and _has_convolutions(network):
            continue
        channels = list(dict.fromkeys((*own, *(kernel[1] for kernel in kernels))))
        for edge in _EDGES[dimensions]:
            yield [*dict.fromkeys((*channels, *_USUAL_CHANNELS))], (edge,) * dimensions


def _has_convolutions(network: nn.Module) -> bool:
    return any(parameter.dim() in (4, 5) for parameter in network.parameters())


def _run(network: nn.Module, shape: tuple[int, ...]) -> _Answer:
    """Run the network on a random image.

    Raises
    ------
    ModelError
        If it returned no tensor that could be scores.
    """
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    raw = network(x.requires_grad_())
    axes = (2, len(shape))
    if isinstance(raw, Tensor):
        if raw.dim() not in axes or len(raw) != 1 or not raw.is_floating_point():
            raise ModelError(
                f"{type(network).__name__}: returned {raw.dtype} values of shape "
                f"{tuple(raw.shape)} for an image of {shape}, expected floating-point scores of "
                "(1, classes) or (1, classes, *space)"
            )
        return _Answer(shape[2:], raw, {})
    several: Any = raw if isinstance(raw, Mapping) else dict(enumerate(_sequence(raw)))
    outputs = {
        key: value for key, value in several.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() in axes
        and len(value) == 1
    }  # fmt: skip
    if not outputs:
        raise ModelError(
            f"{type(network).__name__}: returned a {type(raw).__name__} without scores of "
            "(1, classes) or (1, classes, *space)"
        )
    only = next(iter(outputs.values())) if len(several) == 1 else None
    return _Answer(shape[2:], only, {} if only is not None else outputs)


def _sequence(raw: object) -> Sequence[Any]:
    return raw if isinstance(raw, (list, tuple)) else ()


def _divisor(
    network: nn.Module, shape: tuple[int, ...], first: _Answer, free: Sequence[int] | None
) -> tuple[int, bool]:
    """Return the smallest step by which all free axes can grow, and whether there is none."""
    sizes = shape[2:]
    axes = range(len(sizes)) if free is None else free
    if not axes:
        return math.gcd(*sizes), True
    edge = math.gcd(*(sizes[axis] for axis in axes))
    far = edge if edge <= _LARGEST_DOUBLED[len(sizes)] else edge // 2
    for step in (step for step in range(1, far + 1) if far % step == 0):
        # A network that drops what is left over takes a step of one, but no larger image.
        for growth in (step, far):
            grown = tuple(size + growth * (axis in axes) for axis, size in enumerate(sizes))
            try:
                with torch.no_grad():
                    answer = _run(network, (*shape[:2], *grown))
            except (*NETWORK_ERRORS, KeyError, AttributeError, ModelError):
                break
            if answer.loss != first.loss:
                break
        else:
            return step, False
    return math.gcd(*sizes), True


def _last_activation(output: Tensor) -> str | None:
    """Return the activation that computed an output, from its graph."""
    node = output.grad_fn
    while node is not None:
        name = node.name()
        for activation in ("LogSoftmax", "Softmax", "Sigmoid"):
            if name.startswith(activation):
                return "log_softmax" if activation == "LogSoftmax" else activation.lower()
        if not any(name.startswith((alike, f"Unsafe{alike}")) for alike in _ALIKE):
            return None
        node = node.next_functions[0][0]
    return None


def _listed(counts: Mapping[int, object]) -> str:
    *others, last = map(str, counts)
    return f"{', '.join(others)} and {last}"
