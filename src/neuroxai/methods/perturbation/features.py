"""Features: the parts of an input that are removed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.errors import MethodError, suggestion
from neuroxai.methods.perturbation.supervoxels import supervoxels
from neuroxai.methods.removers import has_space

FEATURES = ("supervoxels", "modalities")

FeaturesLike = str | NDArray[Any] | Tensor
"""A name, or an image of labels."""


@dataclass(frozen=True, eq=False)
class Features:
    """A division of inputs into features.

    Attributes
    ----------
    labels
        ``(B, 1, *S)``, or ``(B, C, *S)`` for features of single channels: 0 where the input is
        always kept, and 1 to K for the features.
    ids
        Per sample, the label of each feature in the file or array that it is from, or its number.
    """

    labels: Tensor
    ids: tuple[tuple[int, ...], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of features of each sample."""
        return tuple(map(len, self.ids))

    def kept(self, presence: Tensor) -> Tensor:
        """Return the mask ``(B, 1 or C, *S)`` of the present features of each sample.

        Parameters
        ----------
        presence
            ``(B, K)``, 1 for a feature that is kept and 0 for one that is removed.
        """
        with_rest = torch.cat([torch.ones_like(presence[:, :1]), presence], dim=1)
        flat = with_rest.gather(1, self.labels.flatten(1))
        return flat.reshape(self.labels.shape)

    def sizes(self) -> list[Tensor]:
        """Return the number of voxels ``(K,)`` of each feature of each sample."""
        return [
            torch.bincount(labels.flatten(), minlength=count + 1)[1:]
            for labels, count in zip(self.labels, self.counts, strict=True)
        ]

    def spread(self, values: list[Tensor]) -> Tensor:
        """Return a map of amounts: each feature's value ``(K,)``, divided among its voxels."""
        rows = []
        for labels, of_sample, size in zip(self.labels, values, self.sizes(), strict=True):
            per_voxel = torch.cat([of_sample.new_zeros(1), of_sample / size.to(of_sample)])
            rows.append(per_voxel[labels])
        return torch.stack(rows)

    def describe(self, values: list[Tensor], errors: list[Tensor] | None = None) -> dict[str, Any]:
        """Return each feature's value and its standard error, ready for JSON."""
        described: dict[str, Any] = {
            "feature_ids": [list(each) for each in self.ids],
            "feature_voxels": [each.tolist() for each in self.sizes()],
            "feature_values": [each.tolist() for each in values],
        }
        if errors is not None:
            described["feature_standard_errors"] = [each.tolist() for each in errors]
        return described


def check_features(method: str, features: FeaturesLike, segments: int) -> None:
    """Raise if features are unknown, or a number of supervoxels is not possible."""
    if isinstance(features, str) and features not in FEATURES:
        hint = suggestion(features, FEATURES)
        raise MethodError(f"{method}: unknown features {features!r}: {hint}; or an array of labels")
    if segments < 1:
        raise MethodError(f"{method}: segments is {segments}, expected at least 1")


def make_features(
    features: FeaturesLike, x: Tensor, segments: int, *, each_modality: bool = False
) -> Features:
    """Return the features of inputs.

    Parameters
    ----------
    features
        ``supervoxels``; ``modalities``, each channel as a whole; or labels that broadcast to
        ``(B, 1, *S)`` or ``(B, C, *S)``, in which 0 is no feature. The features of an input without
        space are its channels.
    x
        The inputs ``(B, C, *S)``.
    segments
        Approximate number of supervoxels.
    each_modality
        Whether a part of one channel is a feature of its own.

    Raises
    ------
    MethodError
        If the labels do not fit to the input, or there are none.

    Examples
    --------
    >>> labels = torch.tensor([0, 7, 7, 3])
    >>> found = make_features(labels, torch.zeros(1, 2, 4), 1)
    >>> found.labels.tolist(), found.ids
    ([[[0, 2, 2, 1]]], ((3, 7),))
    >>> make_features(labels, torch.zeros(1, 2, 4), 1, each_modality=True).labels.tolist()
    [[[0, 2, 2, 1], [0, 4, 4, 3]]]
    """
    if isinstance(features, str) and (features == "modalities" or not has_space(x)):
        each = torch.arange(1, x.shape[1] + 1, device=x.device)
        labels = each.reshape(1, -1, *[1] * (x.dim() - 2)).expand(x.shape)
        return Features(labels, (tuple(range(x.shape[1])),) * len(x))
    given = supervoxels(x, segments) if isinstance(features, str) else _given(features, x)
    labels, ids = torch.empty_like(given), []
    for sample, values in enumerate(given):
        known = values.unique()
        known = known[known != 0]
        labels[sample] = torch.where(values == 0, 0, torch.searchsorted(known, values) + 1)
        ids.append(tuple(known.tolist()))
        if not len(known):
            raise MethodError("the labels of the features are 0 everywhere: give at least one")
    if each_modality and labels.shape[1] == 1:
        counts = labels.new_tensor([len(each) for each in ids])
        channel = torch.arange(x.shape[1], device=x.device)
        shift = (counts[:, None] * channel).reshape(*x.shape[:2], *[1] * (x.dim() - 2))
        labels = torch.where(labels > 0, labels + shift, 0)
        ids = [each * x.shape[1] for each in ids]
    return Features(labels, tuple(ids))


def _given(features: NDArray[Any] | Tensor, x: Tensor) -> Tensor:
    """Return an array of labels as ``(B, 1, *S)`` or ``(B, C, *S)``."""
    given = features if isinstance(features, Tensor) else torch.from_numpy(np.array(features))
    if given.is_floating_point() and bool((given != given.round()).any()):
        raise MethodError("the labels of the features have fractions, expected whole numbers")
    given = given.detach().to(x.device).long()
    shape = tuple(given.shape)
    if given.dim() == x.dim() - 2:
        given = given[None, None]
    elif given.dim() == x.dim() - 1:
        given = given[None]
    fits = given.dim() == x.dim() and given.shape[2:] == x.shape[2:]
    if not fits or given.shape[0] not in (1, len(x)) or given.shape[1] not in (1, x.shape[1]):
        raise MethodError(
            f"the labels of the features have the shape {shape}, expected {tuple(x.shape[2:])}, "
            f"that of an image of the input {tuple(x.shape)}"
        )
    return given.expand(len(x), *given.shape[1:]).contiguous()


def expected_features(features: FeaturesLike, segments: int, each_modality: bool, x: Tensor) -> int:
    """Return the expected number of features per sample, before they are computed.

    Examples
    --------
    >>> expected_features("supervoxels", 50, True, torch.zeros(1, 4, 8, 6, 5))
    200
    """
    if isinstance(features, str) and (features == "modalities" or not has_space(x)):
        return x.shape[1]
    if not isinstance(features, str):
        segments = max(len(each) for each in make_features(features, x, segments).ids)
    return segments * (x.shape[1] if each_modality else 1)
