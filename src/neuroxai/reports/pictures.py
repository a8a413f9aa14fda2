"""A case and its maps on the RAS+ grid, ready to be drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from neuroxai.data.case import Case
from neuroxai.data.grid import obliquity
from neuroxai.data.placement import Placement
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction
from neuroxai.render.colors import LABELS
from neuroxai.render.scan import HeatMap, Scan


def picture_of(
    case: Case,
    placement: Placement,
    maps: Sequence[PatientMap],
    prediction: Prediction | None,
) -> tuple[Scan, list[HeatMap]]:
    """Return a case and its maps, ready to be drawn.

    Parameters
    ----------
    case, placement
        The study, and the mapping to its upright grid.
    maps
        The maps of one target. Their restriction is outlined on the scan.
    prediction
        The network's answer, if it is drawn.
    """
    used = {channel for m in maps for channel in m.channels if m.channels != ("all",)}
    scan = scan_of(case, placement, prediction, used)
    upright = placement.upright
    within = maps[0].within_mask() if maps else None
    if within is not None:
        name = str(maps[0].explanation.target["within"])
        scan = replace(scan, target_mask=upright.reorient(within), target_mask_name=name)
    heats = [
        HeatMap(
            method=m.explanation.method,
            title=m.explanation.title,
            values=upright.reorient(m.volume()),
            signed=m.explanation.signed,
            channels=("",) if m.channels == ("all",) else m.channels,
        )
        for m in maps
    ]
    return scan, heats


def scan_of(
    case: Case,
    placement: Placement,
    prediction: Prediction | None,
    used: Collection[str] = (),
) -> Scan:
    """Return a case, ready to be drawn.

    Parameters
    ----------
    case, placement
        The study, and the mapping to its upright grid.
    prediction
        The network's answer, if it is drawn.
    used
        The modalities to draw; all of them if none of these exists.
    """
    names = [name for name in case.volumes if name in used] or list(case.volumes)
    labels = prediction.labels if prediction is not None else None
    # The truth has labels of tumors. Other classes of a network would get the same colors.
    other_classes = prediction is not None and labels is not None and not prediction.of_tumors
    truth = None if other_classes else case.truth
    upright = placement.upright
    return Scan(
        name=case.name,
        modalities={name: upright.reorient(case.volumes[name]) for name in names},
        spacing=spacing_ras(placement),
        prediction=upright.reorient(labels) if labels is not None else None,
        truth=upright.reorient(truth) if truth is not None else None,
        classes=prediction.classes if other_classes and prediction is not None else LABELS,
        slice_only=placement.slice_index,
        laterality_known=case.laterality_known,
        obliquity=obliquity(case.affine) if case.laterality_known else 0.0,
    )


def spacing_ras(placement: Placement) -> tuple[float, float, float]:
    """Return the voxel size in mm along X, Y and Z."""
    x, y, z = np.linalg.norm(placement.upright.reoriented_affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def strongest_modality(maps: Sequence[PatientMap]) -> str:
    """Return the modality with the largest share of the attribution, summed over all maps.

    Class activation maps, which have no modality, do not count. If there are no other maps it is
    the case's first modality.
    """
    shares: dict[str, float] = {}
    for m in maps:
        if m.channels == ("all",):
            continue
        size = m.values[0].abs().flatten(1).sum(dim=1).double()
        for channel, share in zip(m.channels, (size / size.sum().clamp(min=1e-30)), strict=True):
            shares[channel] = shares.get(channel, 0.0) + float(share)
    if not shares:
        return next(iter(maps[0].case.volumes))
    return max(shares, key=shares.__getitem__)
