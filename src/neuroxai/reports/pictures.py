"""A case and its maps on the RAS+ grid, ready to be drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from neuroxai.core.explanation import Explanation
from neuroxai.data.case import Case
from neuroxai.data.grid import obliquity
from neuroxai.data.placement import Placement
from neuroxai.inspection.chance import NOT_ABOVE_CHANCE
from neuroxai.inspection.modality_shares import modality_shares
from neuroxai.methods.class_activation import WHERE_ONLY
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction
from neuroxai.render.colors import LABELS, Kind
from neuroxai.render.scan import HeatMap, Scan

ARBITRARY = "arbitrary unit"
"""Unit of the maps that are comparable only within themselves."""


def alarm_fact(case: Case) -> dict[str, str]:
    """Return the alarms of a case's check as the first fact of a figure; empty without any."""
    alarms = "" if case.quality is None else case.quality.summary()
    return {"ALARM": alarms} if alarms else {}


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
    return scan, [_heat(m, upright) for m in maps]


def _heat(m: PatientMap, upright: Placement) -> HeatMap:
    """Return a map, ready to be drawn; without a unit, as a fraction of its largest value."""
    values, unit = upright.reorient(m.volume()), unit_of(m.explanation)
    largest = float(np.abs(values).max(initial=0.0))
    if unit == ARBITRARY and 0 < largest < np.inf:
        values, unit = values / largest, "fraction of the map's largest value"
    return HeatMap(
        method=m.explanation.method,
        title=m.explanation.title,
        values=values,
        kind=kind_of(m.explanation),
        channels=("",) if m.channels == ("all",) else m.channels,
        unit=unit,
        quantity=m.explanation.quantity,
        shares={
            name: share.absolute for name, share in modality_shares(m.values[0], m.channels).items()
        },
        mark="" if m.chance is None or m.chance.above else NOT_ABOVE_CHANCE,
        where_only=any(WHERE_ONLY in note for note in m.explanation.notes),
    )


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
        network_spacing=network_spacing_ras(placement) if case.laterality_known else None,
    )


def kind_of(explanation: Explanation) -> Kind:
    """Return the meaning of a map's values, which chooses the colors.

    A class activation map without a sign has evidence for the target only.
    """
    if explanation.signed:
        return "signed"
    return "evidence" if explanation.quantity == "activation" else "magnitude"


def unit_of(explanation: Explanation) -> str:
    """Return the unit of a map's values, with the scale of its target.

    Integrated gradients of a logit, for example, have the unit ``logit per voxel``.
    """
    unit = explanation.units.partition(";")[0]
    return unit.replace("target", str(explanation.target.get("scale", "target")))


def spacing_ras(placement: Placement) -> tuple[float, float, float]:
    """Return the voxel size in mm along X, Y and Z."""
    x, y, z = np.linalg.norm(placement.upright.reoriented_affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def network_spacing_ras(placement: Placement) -> tuple[float, float, float]:
    """Return the voxel size of the network's grid in mm along X, Y and Z.

    For a 2D network, the size through the slice is that of the scan.

    Examples
    --------
    >>> affine = np.diag([1.0, 2.0, 3.0, 1.0])
    >>> network_spacing_ras(Placement.fit((4, 5, 6), affine, order=(2, 1, 0)))
    (1.0, 2.0, 3.0)
    """
    import nibabel as nib

    worlds = nib.orientations.io_orientation(placement.network_affine)[:, 0].tolist()
    sizes = np.linalg.norm(placement.network_affine[:3, :3], axis=0)
    x, y, z = (float(sizes[worlds.index(world)]) for world in range(3))
    return x, y, z
