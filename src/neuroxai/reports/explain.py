"""Everything one explained case leaves on disk: maps, sidecars, prediction, montages, summary."""

from __future__ import annotations

import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroxai.core.explanation import Explanation, versions
from neuroxai.core.target.target import same_question
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.data.case import Case
from neuroxai.data.grid import obliquity
from neuroxai.data.placement import Placement
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import Results
from neuroxai.files.names import sidecar
from neuroxai.patient.explanations import Explanations
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction
from neuroxai.patient.regions import ASKED
from neuroxai.render.colors import LABELS
from neuroxai.render.figures import draw_modalities, draw_planes
from neuroxai.render.scan import HeatMap, Scan


@dataclass
class CaseReport:
    """Collects a case's results, target by target.

    Attributes
    ----------
    results
        The folder for all files, and those written so far.
    montages, targets
        The pictures, and what is known of each target.
    warnings
        What is odd about the case or the way it was explained, of all targets.
    """

    results: Results
    montages: list[Path] = field(default_factory=list)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, explanations: Explanations) -> None:
        """Write one target's maps, sidecars and montages, and the prediction.

        A target that is there already, as the predicted class by its name, is not written again.
        """
        maps = [explanations[name] for name in explanations]
        first: PatientMap = maps[0]
        target = str(first.explanation.target["name"])
        if self._has(first.explanation.target):
            return
        prediction = explanations.prediction
        if prediction is not None and not self.targets:
            labels = prediction.save(self.results.folder)
            if labels is not None:
                self.results.add(labels)
        for patient_map in maps:
            path = patient_map.save(self.results.folder)
            self.results.add(path, sidecar(path))
        self.warnings += [each for each in explanations.warnings if each not in self.warnings]
        pictures = self._draw(first, maps, prediction, target)
        self.montages += pictures
        self.results.add(*pictures)
        self.targets[target] = {
            "target": dict(first.explanation.target),
            "score": first.explanation.score[0],
            "shared_seconds": round(explanations.shared_seconds, 3),
            "methods": {m.explanation.method: _row(m) for m in maps},
            "refused": dict(explanations.refused),
            "montages": [picture.name for picture in pictures],
        }

    def _has(self, target: Mapping[str, Any]) -> bool:
        """Whether the same was asked before, by another word."""
        known = self.targets.get(str(target["name"]))
        return known is not None and same_question(known["target"], target)

    def _draw(
        self,
        first: PatientMap,
        maps: Sequence[PatientMap],
        prediction: Prediction | None,
        target: str,
    ) -> list[Path]:
        scan, heats = picture_of(first.case, first.placement, maps, prediction)
        facts = _facts(first, maps, prediction)
        stem = first.stem.split("_desc-")[0]
        pictures = [
            draw_modalities(
                scan,
                heats,
                target,
                self.results.folder / f"{stem}_montage-modalities.png",
                facts=facts,
            )
        ]
        if scan.slice_only is None:
            pictures.append(
                draw_planes(
                    scan,
                    heats,
                    target,
                    self.results.folder / f"{stem}_montage-planes.png",
                    modality=strongest_modality(maps),
                    facts=facts,
                )
            )
        return pictures

    def finish(self, explanations: Explanations, *, seconds: float) -> Path:
        """Write ``summary.json`` and return its path."""
        first: PatientMap = explanations[next(iter(explanations))]
        prediction = explanations.prediction
        content = {
            "case": first.case.name,
            "model": dict(first.model),
            "prediction": prediction.describe() if prediction is not None else None,
            "targets": self.targets,
            "warnings": list(self.warnings),
            "seconds": round(seconds, 3),
            "peak_memory_mb": peak_memory_mb(),
            "memory": dict(explanations.memory),
            "provenance": {**first.explanation.provenance, "versions": versions()},
            "use": NOT_FOR_CLINICAL_USE,
        }
        return self.results.add(write_json(self.results.folder / "summary.json", content))


def picture_of(
    case: Case,
    placement: Placement,
    maps: Sequence[PatientMap],
    prediction: Prediction | None,
) -> tuple[Scan, list[HeatMap]]:
    """Return a case and its maps on the RAS+ grid, ready to be drawn."""
    used = {channel for m in maps for channel in m.channels if m.channels != ("all",)}
    scan = scan_of(case, placement, prediction, used)
    upright = placement.upright
    asked = maps[0].asked() if maps else None
    if asked is not None:
        of = str(maps[0].explanation.target["within"])
        scan = replace(scan, target_mask=upright.reorient(asked), target_mask_name=of)
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
    """Return a case on the RAS+ grid, with the modalities that are ``used``, or all of them."""
    names = [name for name in case.volumes if name in used] or list(case.volumes)
    labels = prediction.labels if prediction is not None else None
    # A truth of tumors says nothing of a network's own classes, and would share their colors.
    own = prediction is not None and labels is not None and not prediction.of_tumors
    truth = None if own else case.truth
    upright = placement.upright
    return Scan(
        name=case.name,
        modalities={name: upright.reorient(case.volumes[name]) for name in names},
        spacing=spacing_ras(placement),
        prediction=upright.reorient(labels) if labels is not None else None,
        truth=upright.reorient(truth) if truth is not None else None,
        classes=prediction.classes if own and prediction is not None else LABELS,
        slice_only=placement.slice_index,
        laterality_known=case.laterality_known,
        obliquity=obliquity(case.affine) if case.laterality_known else 0.0,
    )


def spacing_ras(placement: Placement) -> tuple[float, float, float]:
    """Return the voxel size in mm along X, Y, Z."""
    x, y, z = np.linalg.norm(placement.upright.reoriented_affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def strongest_modality(maps: Sequence[PatientMap]) -> str:
    """Return the modality that most of the attribution lies in, over all maps by modality."""
    shares: dict[str, float] = {}
    for m in maps:
        if m.channels == ("all",):
            continue
        size = m.explanation.values[0].abs().flatten(1).sum(dim=1).double()
        for channel, share in zip(m.channels, (size / size.sum().clamp(min=1e-30)), strict=True):
            shares[channel] = shares.get(channel, 0.0) + float(share)
    if not shares:
        return next(iter(maps[0].case.volumes))
    return max(shares, key=shares.__getitem__)


def gap_of(explanation: Explanation) -> float | None:
    """Return the worst completeness gap of an explanation, None where it has none."""
    gaps = [g for g in explanation.diagnostics.get("completeness_gap", ()) if g is not None]
    return max(gaps, default=None)


def format_score(target: Mapping[str, Any], prediction: Prediction | None) -> str:
    """Return what a target's number is: a mean over voxels, or a classifier's one output."""
    single = prediction is not None and prediction.labels is None
    return f"target's {'' if single else 'mean '}{target['scale']}"


def peak_memory_mb() -> int:
    """Return the largest resident size this process ever had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _row(patient_map: PatientMap) -> dict[str, Any]:
    explanation = patient_map.explanation
    return {
        "file": f"{patient_map.stem}.nii.gz",
        "seconds": round(explanation.seconds, 3),
        "completeness_gap": gap_of(explanation),
        "layer": explanation.layer,
        "diagnostics": dict(explanation.diagnostics),
        "evidence": patient_map.evidence,
        "notes": list(patient_map.notes),
    }


def _truth(case: Case) -> str:
    if case.category is not None:
        return f"in the folder {case.category}"
    return f"grade {case.grade}" if case.grade else "grade unknown"


def _format_restricted_shares(maps: Sequence[PatientMap]) -> str:
    """Return how much of each map lies where the target was asked, and of the volume."""
    known = [(m.explanation.title, m.evidence) for m in maps if m.evidence is not None]
    shares = [(title, found) for title, found in known if found["all"] and ASKED in found["all"]]
    if not shares:
        return ""
    each = ", ".join(f"{title} {found['all'][ASKED]:.0%}" for title, found in shares)
    return f"{each} (of the volume {shares[0][1]['volume'][ASKED]:.1%})"


def _facts(
    first: PatientMap, maps: Sequence[PatientMap], prediction: Prediction | None
) -> dict[str, str]:
    target = first.explanation.target
    facts = {format_score(target, prediction): f"{first.explanation.score[0]:.4g}"}
    if prediction is not None and prediction.probabilities:
        chance = prediction.probabilities.get(str(target["name"]))
        if chance is not None:
            facts["probability"] = f"{chance:.1%}"
        facts["truth"] = _truth(first.case)
    if prediction is not None and prediction.labels is not None:
        facts["predicted"] = ", ".join(
            f"{name} {volume:.1f} ml" for name, volume in prediction.volumes_ml().items()
        )
    if prediction is not None and prediction.dice():
        volumes = prediction.volumes_ml()
        facts["Dice"] = ", ".join(
            # The challenge's convention counts it as 1, which would look like an achievement.
            f"{name} in neither" if value == 1 and not volumes[name] else f"{name} {value:.2f}"
            for name, value in prediction.dice().items()
        )
    if target.get("within"):
        facts["within"] = str(target["within"])
        shares = _format_restricted_shares(maps)
        if shares:
            facts["of each map there"] = shares
    facts["model"] = str(first.model["name"])
    gaps = [(m.explanation.title, gap_of(m.explanation)) for m in maps]
    known = [f"{title} {gap:.1%}" for title, gap in gaps if gap is not None]
    if known:
        facts["completeness gap"] = ", ".join(known)
    lost = [f"{m.explanation.title} {m.outside:.0%}" for m in maps if m.mostly_outside]
    if lost:
        facts["mostly outside the brain"] = ", ".join(lost)
    return facts
