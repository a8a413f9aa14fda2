"""Outputs of a network: which one is explained, and what its channels mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from neuroxai.core.covered import Covered
from neuroxai.core.engine.precision import autocast_for, upcast
from neuroxai.core.errors import TargetError, suggestion

Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Outputs:
    """Meaning of a network's output channels.

    Parameters
    ----------
    names
        Class (or region) name of every output channel; empty if unknown.
    regions
        Names of regions and their classes, for outputs that are exclusive classes.
    activation
        Function that turns the output into probabilities; None if unknown.
    activated
        Whether the network applies the activation itself.
    key
        Which of several outputs is explained: an index for a list or tuple, a key for a dict. By
        default the only tensor, or the only one with a channel per name and, for a map, the grid of
        the input.
    smallest_enhancement_mm3
        If all enhancing tumor together is smaller than this, it is relabeled as necrosis in the
        prediction; scores do not change.
    locate
        Returns the part of the image that an output of a shape ``S`` covers; None if unknown.
    label_numbers
        Number of each overlapping class in the labels, where later classes overwrite earlier ones.
        Empty: the class with the largest logit.

    Raises
    ------
    TargetError
        If the activation is unknown.

    Examples
    --------
    >>> Outputs(("background", "tumor"), activation="softmax").channel("tumor", 2)
    1
    """

    names: tuple[str, ...] = ()
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    activation: Activation | None = None
    activated: bool = False
    key: int | str | None = None
    smallest_enhancement_mm3: float = 0.0
    locate: Callable[[tuple[int, ...]], Covered | None] | None = field(
        default=None, compare=False, repr=False
    )
    label_numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        known = get_args(Activation)
        if self.activation not in (None, *known):
            raise TargetError(
                f"unknown activation {self.activation!r}: {suggestion(str(self.activation), known)}"
            )

    def run(self, network: nn.Module, x: Tensor, precision: str = "fp32") -> Tensor:
        """Run a network and return its selected output, in single precision at least.

        Parameters
        ----------
        network, x
            The network and its input ``(B, C, *S)``.
        precision
            Precision of the layers, see :class:`~neuroxai.core.engine.settings.PassSettings`.

        Raises
        ------
        TargetError
            If the output is not a floating-point tensor ``(B, K)``, ``(B, K, *S)``, or ``(B,)``
            of a single output, or the input has no batch axis.
        """
        with autocast_for(precision, x.device), _batched_convolutions(network, x):
            raw = network(x)
        output = _one_column(self.select(raw, x), x)
        _check(output, x)
        return upcast(output)

    def select(self, raw: Any, x: Tensor | None = None) -> Tensor:
        """Select one tensor from what the network returned.

        Parameters
        ----------
        raw
            What the network returned.
        x
            Its input ``(B, C, *S)``, which tells a map from a smaller one.

        Raises
        ------
        TargetError
            If the network returned several outputs and :attr:`key` does not name one of them.
        """
        if isinstance(raw, Tensor):
            return raw
        selected = _value_at(raw, self.key) if self.key is not None else self._only(raw, x)
        if isinstance(selected, Tensor):
            return selected
        raise TargetError(
            f"the network returned {_describe(raw)}, expected a tensor: select an output by "
            "outputs=Outputs(key=...), on the command line by --output-key, or by the key 'output' "
            f"of the card (got {self.key!r})"
        )

    def _only(self, raw: Any, x: Tensor | None) -> Tensor | None:
        """Return the only tensor, or the only one that fits to names and input, else None."""
        found = _tensors(raw)
        if len(found) > 1 and self.names and x is not None:
            shapes = ((len(self.names),), (len(self.names), *x.shape[2:]))
            found = [each for each in found if tuple(each.shape[1:]) in shapes]
        return found[0] if len(found) == 1 else None

    def covered(self, output: Tensor) -> Covered | None:
        """Return the part of the image that a smaller output covers; None if all or unknown."""
        if self.locate is None or output.dim() == 2:
            return None
        return self.locate(tuple(output.shape[2:]))

    def channel(self, which: int | str, channels: int) -> int:
        """Return the index of a class given by number or name.

        Raises
        ------
        TargetError
            If there is no such class.
        """
        if isinstance(which, (int, np.integer)) and not isinstance(which, bool):
            which = int(which)
            if not 0 <= which < channels:
                raise TargetError(
                    f"class {which} does not exist: the output has {channels} channels, "
                    f"0 to {channels - 1}"
                )
            return which
        lower = [name.lower() for name in self.names]
        if str(which).lower() in lower:
            return lower.index(str(which).lower())
        if not self.names:
            raise TargetError(
                f"unknown class {which!r}: the network's classes have no names, so give a number "
                f"from 0 to {channels - 1}, or Outputs(names=...)"
            )
        raise TargetError(f"unknown class {which!r}: {suggestion(which, self.names)}")

    def probabilities(self, output: Tensor) -> Tensor:
        """Return class probabilities of a model output, over axis 1.

        Raises
        ------
        TargetError
            If the activation is unknown.
        """
        if self.activated or self.activation == "none":
            return output
        if self.activation == "softmax":
            return output.softmax(dim=1)
        if self.activation == "sigmoid":
            return output.sigmoid()
        raise TargetError(
            "probabilities require the network's activation: give activation='softmax' or "
            "activation='sigmoid'"
        )


def _value_at(raw: Any, key: int | str) -> Any:
    try:
        return raw[key]
    except (KeyError, IndexError, TypeError):
        if isinstance(key, str) and key.isdigit() and isinstance(raw, Sequence):
            return raw[int(key)] if int(key) < len(raw) else None
        return getattr(raw, key, None) if isinstance(key, str) else None


def _tensors(raw: Any) -> list[Tensor]:
    """Return the tensors of a collection and of the collections in it."""
    if isinstance(raw, Tensor):
        return [raw]
    values = raw.values() if isinstance(raw, Mapping) else raw
    if not isinstance(raw, Mapping | list | tuple):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _one_column(output: Tensor, x: Tensor) -> Tensor:
    """Return a single output per image, ``(B,)``, or that of one image, ``()``, as ``(B, 1)``."""
    if output.dim() < 2 and output.numel() == len(x):
        return output.reshape(len(x), 1)
    return output


def _check(output: Tensor, x: Tensor) -> None:
    """Raise if an output does not fit to its input: a row or slice would be taken for a class."""
    shape, space = tuple(output.shape), tuple(x.shape[2:])
    problem = (
        f"the network returned a tensor of shape {shape}, expected (batch, classes) or "
        f"(batch, classes, *space) for images of {(*x.shape,)}"
    )
    if output.dim() not in (2, x.dim()):
        raise TargetError(f"{problem}: wrap it in a module that returns this shape")
    if len(output) != len(x):
        raise TargetError(
            f"{problem}: it has {len(output)} rows for {len(x)} image(s); wrap it in a module that "
            "returns one row per image, or add the batch axis to the input with x[None]"
        )
    if output.dim() == x.dim() and shape[1:-1] == space != shape[2:]:
        raise TargetError(
            f"{problem}: its classes are the last axis; wrap it in a module that moves them to "
            "axis 1"
        )
    if not output.is_floating_point():
        raise TargetError(
            f"the network returned values of {output.dtype}, expected floating-point scores: "
            "explain it without its last step (argmax, threshold), which has no gradient"
        )


@contextmanager
def _batched_convolutions(network: nn.Module, x: Tensor) -> Iterator[None]:
    """Context manager that raises if a convolution is called on an image without a batch axis.

    Convolutions accept ``(C, *S)``, and rows of voxels would be taken for samples. Only those of
    one dimension more than the images of ``x`` are checked.
    """
    axes = x.dim() - 1

    def check(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(inputs[0], Tensor) and inputs[0].dim() == axes + 1:
            raise TargetError(
                f"the input has shape {tuple(x.shape)}, which the network's {axes}D convolutions "
                "take as one image without a batch axis, expected (batch, channels, *space): add "
                "the axis with x[None]"
            )

    handles = [
        module.register_forward_pre_hook(check)
        for module in network.modules()
        if isinstance(module, _ConvNd) and len(module.kernel_size) == axes
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _describe(raw: Any) -> str:
    if isinstance(raw, Mapping):
        return "a dict with the keys " + ", ".join(repr(key) for key in raw)
    if isinstance(raw, (list, tuple)):
        shapes = [tuple(r.shape) if isinstance(r, Tensor) else type(r).__name__ for r in raw]
        return f"a {type(raw).__name__} of {shapes}"
    return f"a {type(raw).__name__}"
