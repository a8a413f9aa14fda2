"""An attribution with its provenance."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.version import __version__


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a method computed, before it is wrapped.

    Attributes
    ----------
    values
        ``(B, C, *S)``, or ``(B, 1, *S)`` for class activation maps; signed, never clipped.
    diagnostics
        How far to trust the values: completeness gap, standard error, counts.
    notes
        What a reader must know, a sentence each.
    layer
        The layer that was looked into, if any.
    """

    values: Tensor
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    layer: str | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """An attribution and how it was made.

    Attributes
    ----------
    values
        Signed, the shape of the input (one channel for class activation maps), on the CPU.
    method, title, signed, units
        The method's word, its name for people, whether negative values mean something, and what
        one unit is.
    parameters
        The method's parameters.
    target
        What was explained, as it was bound.
    score
        The target's value per sample.
    layer, diagnostics, notes
        See :class:`Attribution`.
    provenance
        Seed, device, versions, hashes of the network and the input.
    within
        ``(B, *S)`` bool, where on the output's grid the target was asked; None for everywhere.
    shared
        Whether one channel stands for all of the input's, as in a class activation map.
    """

    values: Tensor
    method: str
    title: str
    signed: bool
    units: str
    parameters: Mapping[str, Any]
    target: Mapping[str, Any]
    score: tuple[float, ...]
    layer: str | None
    diagnostics: Mapping[str, Any]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    seconds: float
    within: Tensor | None = None
    shared: bool = False

    def __repr__(self) -> str:
        layer = f", layer {self.layer}" if self.layer else ""
        return (
            f"<{self.title} of {self.target['name']}: {tuple(self.values.shape)}{layer}. "
            f"{NOT_FOR_CLINICAL_USE}>"
        )

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]:
        found: NDArray[np.generic] = np.array(self.values.numpy(), dtype=dtype, copy=copy)
        return found

    @property
    def explanation(self) -> Explanation:
        """The explanation itself: maps of cases and of tensors share this attribute."""
        return self

    def describe(self) -> dict[str, Any]:
        """Return everything but the values, ready for JSON; the same on every repeat."""
        return {
            "method": self.method,
            "title": self.title,
            "signed": self.signed,
            "units": self.units,
            "parameters": dict(self.parameters),
            "target": dict(self.target),
            "score": list(self.score),
            "layer": self.layer,
            "diagnostics": dict(self.diagnostics),
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
            "use": NOT_FOR_CLINICAL_USE,
        }


def tensor_hash(x: Tensor) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes.

    Examples
    --------
    >>> tensor_hash(torch.zeros(2)) == tensor_hash(torch.zeros(1, 2))
    False
    """
    x = x.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{x.dtype}{tuple(x.shape)}".encode())
    digest.update(x.view(torch.uint8).numpy().data if x.numel() else b"")
    return digest.hexdigest()


def network_hash(network: nn.Module) -> str:
    """Return the SHA-256 of a network's state: names, shapes and values, in order."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name}:{tensor_hash(value.reshape(-1))}:{tuple(value.shape)}".encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions that decide a number."""
    return {
        "neuroxai": __version__,
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "python": platform.python_version(),
    }
