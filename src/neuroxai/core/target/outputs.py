"""What a network returns: which of its outputs counts, and what the channels mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor, nn

from neuroxai.core.engine.precision import autocast_for, upcast
from neuroxai.core.errors import TargetError, suggestion

Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Outputs:
    """What the channels of a model output mean.

    Attributes
    ----------
    names
        Class (or region) name of every output channel, empty if unknown.
    regions
        Region name to the names of its classes, for outputs that are exclusive classes.
    activation
        What turns the network's output into probabilities; None if unknown.
    activated
        The network applies it itself.
    key
        Which of several outputs counts: an index for a list or tuple, a key for a dict.
    smallest_enhancement_mm3
        Enhancing tumor of less in all is called necrosis in the answer; scores stay as they are.
    """

    names: tuple[str, ...] = ()
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    activation: Activation | None = None
    activated: bool = False
    key: int | str | None = None
    smallest_enhancement_mm3: float = 0.0

    def __post_init__(self) -> None:
        words = get_args(Activation)
        if self.activation not in (None, *words):
            raise TargetError(
                f"activation is {self.activation!r}: {suggestion(str(self.activation), words)}"
            )

    def answer(self, network: nn.Module, x: Tensor, precision: str = "fp32") -> Tensor:
        """Return the selected output of ``network(x)``, computed in the given precision.

        The result has at least single precision, whatever the layers compute in.

        Raises
        ------
        TargetError
            If it is no answer ``(B, K)`` or ``(B, K, *S)`` to images of as many axes.
        """
        with autocast_for(precision, x.device):
            raw = network(x)
        chosen = self.select(raw)
        _check(chosen, x)
        return upcast(chosen)

    def select(self, raw: Any) -> Tensor:
        """Return the one output that counts.

        Raises
        ------
        TargetError
            If the network returned several outputs and :attr:`key` does not name one of them.
        """
        if isinstance(raw, Tensor):
            return raw
        chosen = _only(raw) if self.key is None else _named(raw, self.key)
        if isinstance(chosen, Tensor):
            return chosen
        raise TargetError(
            f"the network returned {_describe(raw)}, expected a tensor: name the output that "
            f"counts, by outputs=Outputs(key=...) or output: in the description (got {self.key!r})"
        )

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
        folded = [name.lower() for name in self.names]
        if str(which).lower() in folded:
            return folded.index(str(which).lower())
        if not self.names:
            raise TargetError(
                f"class {which!r} is unknown because the network's classes have no names: "
                f"give a number from 0 to {channels - 1}, or names="
            )
        raise TargetError(f"class {which!r} is unknown: {suggestion(which, self.names)}")

    def probabilities(self, output: Tensor) -> Tensor:
        """Return class probabilities of a model output, over axis 1."""
        if self.activated or self.activation == "none":
            return output
        if self.activation == "softmax":
            return output.softmax(dim=1)
        if self.activation == "sigmoid":
            return output.sigmoid()
        raise TargetError(
            "probabilities need to know how the network's output becomes one: "
            "give activation='softmax' or activation='sigmoid'"
        )


def _named(raw: Any, key: int | str) -> Any:
    try:
        return raw[key]
    except (KeyError, IndexError, TypeError):
        return getattr(raw, key, None) if isinstance(key, str) else None


def _only(raw: Any) -> Any:
    """Return the one value of a collection that holds no other."""
    values = list(raw.values()) if isinstance(raw, Mapping) else raw
    return values[0] if isinstance(values, (list, tuple)) and len(values) == 1 else None


def _check(output: Tensor, x: Tensor) -> None:
    """Refuse what is no answer to ``x``: a row or a slice of it would pass for a class."""
    shape, space = tuple(output.shape), tuple(x.shape[2:])
    got = f"the network returned a tensor of shape {shape}"
    wanted = f"expected (batch, classes) or (batch, classes, *space) for images of {(*x.shape,)}"
    if output.dim() not in (2, x.dim()):
        raise TargetError(f"{got}, {wanted}: put it into a module that lays its answer out so")
    if output.dim() == x.dim() and shape[1:-1] == space != shape[2:]:
        raise TargetError(
            f"{got}, {wanted}: its classes lie last; put it into a module that moves them to axis 1"
        )
    if not output.is_floating_point():
        raise TargetError(
            f"the network returned numbers of {output.dtype}, expected real scores: explain it "
            "without its last step (argmax, threshold), behind which there are no gradients"
        )


def _describe(raw: Any) -> str:
    if isinstance(raw, Mapping):
        return "a dict with the keys " + ", ".join(repr(key) for key in raw)
    if isinstance(raw, (list, tuple)):
        shapes = [tuple(r.shape) if isinstance(r, Tensor) else type(r).__name__ for r in raw]
        return f"a {type(raw).__name__} of {shapes}"
    return f"a {type(raw).__name__}"
