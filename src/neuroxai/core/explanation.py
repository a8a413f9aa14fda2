"""Attributions, and explanations with their provenance."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.version import __version__

Quantity = Literal["amount", "gradient", "activation", "change"]
"""What a value of a map is: an amount per voxel (the sum has a meaning, as of a path method), a
gradient, a weighted activation, or the change of the target if a part around the voxel is
removed."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Result of a method, without provenance.

    Attributes
    ----------
    values
        ``(B, C, *S)``, or ``(B, 1, *S)`` for class activation maps; signed, not clipped.
    diagnostics
        Accuracy of the values: completeness gap, standard error, counts.
    notes
        Sentences for the reader of the map.
    layer
        The layer of a class activation map.
    warnings
        Reasons why the map is void or explains little; they become the first notes.
    """

    values: Tensor
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    layer: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Explanation:
    """An attribution and its provenance.

    Attributes
    ----------
    values
        Signed, the shape of the input (one channel for class activation maps), on the CPU.
    method, title, signed, units
        The method's name on the command line, its display name, whether negative values have a
        meaning, and the unit of the values.
    parameters
        The method's parameters.
    target
        Description of the bound target.
    score
        The target's value per sample.
    layer, diagnostics, notes
        See :class:`Attribution`.
    provenance
        Seed, device, versions, hashes of the network and the input.
    within
        ``(B, *S)`` bool, mask of the target on the output's grid, or on the input's if the output
        covers a part of it; None for the whole output.
    shared
        Whether all channels of the input share one map, as in a class activation map.
    quantity
        What a value is; an amount per voxel keeps its sum when the map is resampled.
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
    quantity: Quantity = "gradient"

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
        """Return everything but the values and the time, as plain values for JSON."""
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
    """Return the SHA-256 of a network's state: names, shapes and values in order."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name}:{tensor_hash(value.reshape(-1))}:{tuple(value.shape)}".encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of everything that affects the values."""
    return {
        "neuroxai": __version__,
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "python": platform.python_version(),
    }
