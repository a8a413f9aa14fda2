"""The summary of an explained case: one entry per map, and per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.strategy import MemoryUse
from neuroxai.inspection.chance import Chance
from neuroxai.inspection.modality_shares import ModalityShare, modality_shares
from neuroxai.inspection.relevance_mass import RelevanceMass
from neuroxai.patient.location import Location
from neuroxai.patient.patient_map import PatientMap


@dataclass(frozen=True)
class MapSummary:
    """One map in the summary.

    Attributes
    ----------
    file, files
        Name of the NIfTI file, or of the first of them; and all of them.
    seconds
        Time of the method, without the passes that it shares with others.
    completeness_gap
        The largest gap of a path method; None for other methods.
    remaining
        The largest share of the prediction that remains at the baseline of a path method; None if
        unknown, and for other methods.
    layer
        The layer of a class activation map; else None.
    diagnostics
        The method's own figures.
    evidence
        Share of the map in each region; None for a map with NaN or infinite values.
    evidence_json
        The same, and the source of the regions, ready for JSON.
    modalities
        Modality to its share of the map; empty for a map without modalities.
    location
        Where in the brain the map is; None if it is nowhere in the brain.
    chance
        The map's share where the target is averaged, compared with uninformative maps; None if the
        target was not restricted, or the map is zero or not finite.
    notes
        Notes for the reader.
    """

    file: str
    files: tuple[str, ...]
    seconds: float
    completeness_gap: float | None
    remaining: float | None
    layer: str | None
    diagnostics: Mapping[str, Any]
    evidence: RelevanceMass | None
    evidence_json: Mapping[str, Any] | None
    modalities: Mapping[str, ModalityShare]
    location: Location | None
    chance: Chance | None
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the summary, ready for JSON."""
        return {
            "file": self.file,
            "files": list(self.files),
            "seconds": round(self.seconds, 3),
            "completeness_gap": self.completeness_gap,
            "remaining_prediction": self.remaining,
            "layer": self.layer,
            "diagnostics": dict(self.diagnostics),
            "evidence": self.evidence_json,
            "modalities": {name: share.describe() for name, share in self.modalities.items()},
            "location": None if self.location is None else self.location.describe(),
            "chance": None if self.chance is None else self.chance.describe(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class TargetSummary:
    """One target in the summary.

    Attributes
    ----------
    target
        The target as it was bound at the explained input.
    score
        The target's value.
    memory
        Strategy and memory of the passes.
    methods
        Method name to map.
    refused
        Method name to the reason why it gives no map.
    montages
        Names of the pictures.
    provenance
        What all maps of the target share: seed, device, precision, hash of the input.
    unfinished
        Methods that were not computed because the run was interrupted.
    """

    target: Mapping[str, Any]
    score: float
    memory: MemoryUse
    methods: Mapping[str, MapSummary]
    refused: Mapping[str, str]
    montages: tuple[str, ...]
    provenance: Mapping[str, Any]
    unfinished: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the summary, ready for JSON."""
        return {
            "target": dict(self.target),
            "score": self.score,
            "memory": self.memory.describe(),
            "methods": {name: each.describe() for name, each in self.methods.items()},
            "refused": dict(self.refused),
            "montages": list(self.montages),
            "provenance": dict(self.provenance),
            "unfinished": list(self.unfinished),
        }


def gap_of(explanation: Explanation) -> float | None:
    """Return the largest completeness gap of an explanation; None if it has none."""
    gaps = [g for g in explanation.diagnostics.get("completeness_gap", ()) if g is not None]
    return max(gaps, default=None)


def remaining_of(explanation: Explanation) -> float | None:
    """Return the largest share of the prediction that remains at a baseline; None if unknown."""
    shares = explanation.diagnostics.get("remaining_prediction", ())
    return max((share for share in shares if share is not None), default=None)


def summarize_map(patient_map: PatientMap, files: Sequence[str]) -> MapSummary:
    """Return the summary of a map that was written to ``files``."""
    explanation = patient_map.explanation
    return MapSummary(
        file=files[0],
        files=tuple(files),
        seconds=explanation.seconds,
        completeness_gap=gap_of(explanation),
        remaining=remaining_of(explanation),
        layer=explanation.layer,
        diagnostics=explanation.diagnostics,
        evidence=patient_map.evidence,
        evidence_json=patient_map.describe_evidence(),
        modalities=modality_shares(patient_map.values[0], patient_map.channels),
        location=patient_map.location,
        chance=patient_map.chance,
        notes=patient_map.notes,
    )
