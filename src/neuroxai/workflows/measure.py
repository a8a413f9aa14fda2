"""What a user gives to measure maps: metrics by name, masks, and maps of other tools."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.errors import MetricError, TargetError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Mask
from neuroxai.core.target.target import Target
from neuroxai.data.case import Case
from neuroxai.data.map_files import read_map
from neuroxai.data.preparation import Prepared
from neuroxai.metrics.base import Metric
from neuroxai.metrics.table import METRICS, make_metric
from neuroxai.workflows.arrays import tensor_of
from neuroxai.workflows.measurement import Facts
from neuroxai.workflows.question import RestrictionLike, restrict_targets

MetricsLike = str | Metric | Iterable[str | Metric] | Mapping[str, Mapping[str, Any]]
"""``all``; a metric by its name or as an object; several; or a mapping of names to parameters."""

MapLike = NDArray[Any] | Tensor | str | os.PathLike[str]
"""A map of another tool: an array, or the path of a NIfTI file on the grid of the scan."""


def make_metrics(metrics: MetricsLike) -> list[Metric]:
    """Return metrics from what a user gives.

    Raises
    ------
    MetricError
        If a metric is unknown, or none is given.

    Examples
    --------
    >>> [metric.name for metric in make_metrics(["auroc", "deletion"])]
    ['auroc', 'deletion']
    """
    if isinstance(metrics, Mapping):
        return [make_metric(name, parameters) for name, parameters in metrics.items()]
    if isinstance(metrics, str):
        metrics = list(METRICS) if metrics == "all" else [metrics]
    if isinstance(metrics, Metric):
        metrics = [metrics]
    made = [each if isinstance(each, Metric) else make_metric(each) for each in metrics]
    if not made:
        raise MetricError("no metric is requested: name one, or 'all'")
    return made


def evidence_mask(
    mask: RestrictionLike | None,
    target: Target,
    outputs: Outputs,
    x: Tensor,
    case: Case | None = None,
    prepared: Prepared | None = None,
) -> Tensor | None:
    """Return where the evidence is known to be, ``(B, *S)`` bool on the network's grid.

    Parameters
    ----------
    mask
        ``truth``, the target's region in the case's truth; an array; or a file. By default the
        truth where there is one.

    Raises
    ------
    TargetError
        If the mask does not exist or does not fit.
    """
    by_default = mask is None
    if by_default and (case is None or case.truth is None):
        return None
    try:
        (restricted,) = restrict_targets(
            [target], "truth" if mask is None else mask, outputs, case, prepared
        )
    except (TargetError, TypeError):
        if by_default:  # the truth has no such class
            return None
        raise
    if not isinstance(restricted.within, Mask):
        raise TargetError(
            f"the mask is {mask!r}, which comes from the network's own answer and does not show "
            "where the evidence is: give 'truth', an array or a file"
        )
    values = restricted.within.values > 0
    values = values if values.dim() == x.dim() - 1 else values.unsqueeze(0)
    found = values.expand(len(x), *x.shape[2:]) if values.shape[1:] == x.shape[2:] else values
    return None if by_default and not bool(found.any()) else found


def case_facts(
    case: Case, prepared: Prepared, modalities: tuple[str, ...], mask: Tensor | None
) -> Facts:
    """Return what is known of a case beside its maps, on the network's grid."""
    placement = prepared.placement
    brain = placement.to_network(case.brain().astype(np.uint8)) > 0
    columns = np.linalg.norm(placement.network_affine[:3], axis=0)
    edges = tuple(float(mm) for mm in columns[: len(placement.grid)])
    inside = torch.from_numpy(np.ascontiguousarray(brain)).unsqueeze(0)
    return Facts(mask, inside, edges, modalities)


def map_on_network_grid(given: MapLike, x: Tensor, case: Case | None = None,
                        prepared: Prepared | None = None) -> Tensor:  # fmt: skip
    """Return a map of another tool as ``(B, C, *S)`` or ``(B, 1, *S)`` on the network's grid.

    Parameters
    ----------
    given
        With a case, an array ``(I, J, K)`` or ``(C, I, J, K)`` on the scan's grid, or a file;
        otherwise an array with the shape of the input or one channel of it.

    Raises
    ------
    CaseError
        If a file cannot be used.
    MetricError
        If the map does not fit.
    """
    if isinstance(given, (str, os.PathLike)):
        if case is None:
            raise MetricError(
                f"map {os.fspath(given)!r} is a file on a scan's grid, but the input is a tensor: "
                "give an array on its grid"
            )
        given = read_map(given, case, x.shape[1])
    values = given.detach().cpu() if isinstance(given, Tensor) else tensor_of(np.asarray(given))
    values = values.float()
    if prepared is None:
        return values if values.dim() == x.dim() else values.unsqueeze(1)
    shape = prepared.placement.shape
    if tuple(values.shape[-3:]) != shape or values.dim() not in (3, 4):
        raise MetricError(
            f"the map has shape {tuple(values.shape)}, expected the grid of the scan, {shape}, or "
            "one such volume for each modality"
        )
    volumes = values if values.dim() == 4 else values.unsqueeze(0)
    on_grid = [prepared.placement.to_network(volume.numpy()) for volume in volumes]
    return torch.from_numpy(np.stack(on_grid)).unsqueeze(0)
