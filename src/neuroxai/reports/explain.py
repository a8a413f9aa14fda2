"""The files of an explained case: maps, sidecars, prediction, montages and summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuroxai.core.errors import OutputError
from neuroxai.core.explanation import Explanation, versions
from neuroxai.core.target.bound_target import same_target
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE, place_in_words
from neuroxai.data.case import Case
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import Results
from neuroxai.files.names import sidecar
from neuroxai.inspection.chance import NOT_ABOVE_CHANCE, describe_reference
from neuroxai.patient.explanations import Explanations
from neuroxai.patient.label_table import label_tables
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction
from neuroxai.render.figures import draw_modalities, draw_planes
from neuroxai.reports.explain_summary import (
    TargetSummary,
    gap_of,
    remaining_of,
    summarize_map,
)
from neuroxai.reports.pictures import alarm_fact, picture_of


@dataclass
class CaseReport:
    """Writes the results of a case, target by target.

    Attributes
    ----------
    results
        The folder, and the files written so far.
    montages
        The pictures.
    targets
        Target name to its summary.
    warnings
        Warnings of all targets, each once.
    shared_seconds
        Time of the passes that all methods and targets share.
    background
        Modality that the pictures are drawn on; None to choose it by the target.
    split_modalities
        Write one 3-D file per modality.
    """

    results: Results
    montages: list[Path] = field(default_factory=list)
    targets: dict[str, TargetSummary] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    shared_seconds: float = 0.0
    background: str | None = None
    split_modalities: bool = False
    _case: Case | None = None
    _model: Mapping[str, str] = field(default_factory=dict)
    _prediction: Prediction | None = None

    def add(self, explanations: Explanations[PatientMap]) -> None:
        """Write one target's maps, sidecars and montages, and with the first one the prediction.

        A target that was written before under the same name is skipped.

        Raises
        ------
        OutputError
            If another target was written under the same name.
        """
        maps = list(explanations.values())
        target = maps[0].explanation.target
        if self._has(target):
            return
        if self._case is None:
            self._case, self._model = maps[0].case, maps[0].model
            self._prediction = explanations.prediction
            self._write_prediction()
        files: dict[str, list[str]] = {}
        for patient_map in maps:
            paths = self._save(patient_map)
            files[patient_map.explanation.method] = [path.name for path in paths]
            self.results.add(*(each for path in paths for each in (path, sidecar(path))))
        pictures = self._draw(maps, explanations.prediction)
        self.montages += pictures
        self.results.add(*pictures)
        self.warnings += [each for each in explanations.warnings if each not in self.warnings]
        self.shared_seconds = explanations.shared_seconds
        self.targets[explanations.target] = TargetSummary(
            target=target,
            score=maps[0].explanation.score[0],
            memory=explanations.memory,
            methods={
                m.explanation.method: summarize_map(m, files[m.explanation.method]) for m in maps
            },
            refused=explanations.refused,
            montages=tuple(picture.name for picture in pictures),
            provenance=_shared_provenance([m.explanation for m in maps]),
            unfinished=explanations.unfinished,
        )

    def finish(self, *, seconds: float, interrupted: bool = False) -> Path:
        """Write ``summary.json`` and return its path.

        Parameters
        ----------
        seconds
            Time of the whole run.
        interrupted
            Whether the run was interrupted, so that methods or targets are missing.
        """
        if self._case is None:
            raise OutputError(f"{self.results.folder}: no target was explained, add one first")
        content = {
            "case": self._case.name,
            "quality": self._case.describe_quality(),
            "model": dict(self._model),
            "prediction": None if self._prediction is None else self._prediction.describe(),
            "targets": {name: each.describe() for name, each in self.targets.items()},
            "interrupted": interrupted,
            "warnings": list(self.warnings),
            "shared_seconds": round(self.shared_seconds, 3),
            "seconds": round(seconds, 3),
            "peak_memory_mb": peak_memory_mb(),
            "versions": versions(),
            "use": NOT_FOR_CLINICAL_USE,
        }
        return self.results.add(write_json(self.results.folder / "summary.json", content))

    @property
    def case(self) -> Case | None:
        """The case; None before the first target."""
        return self._case

    @property
    def prediction(self) -> Prediction | None:
        """The network's prediction; None before the first target."""
        return self._prediction

    def _has(self, target: Mapping[str, Any]) -> bool:
        """Whether the same target was written before."""
        known = self.targets.get(str(target["name"]))
        return known is not None and same_target(known.target, target)

    def _save(self, patient_map: PatientMap) -> list[Path]:
        """Write a map; return its NIfTI files."""
        if self.split_modalities:
            return patient_map.save_modalities(self.results.folder)
        return [patient_map.save(self.results.folder)]

    def _write_prediction(self) -> None:
        if self._prediction is not None:
            labels = self._prediction.save(self.results.folder)
            if labels is not None:
                self.results.add(labels, *label_tables(labels))

    def _draw(self, maps: Sequence[PatientMap], prediction: Prediction | None) -> list[Path]:
        first = maps[0]
        target = str(first.explanation.target["name"])
        scan, heats = picture_of(first.case, first.placement, maps, prediction)
        facts = _facts(maps, prediction)
        stem = self.results.folder / first.stem.split("_desc-")[0]
        path = stem.with_name(f"{stem.name}_montage-modalities.png")
        pictures = [
            draw_modalities(scan, heats, target, path, facts=facts, background=self.background)
        ]
        if scan.slice_only is None:
            path = stem.with_name(f"{stem.name}_montage-planes.png")
            pictures.append(
                draw_planes(scan, heats, target, path, modality=self.background, facts=facts)
            )
        return pictures


def format_score(target: Mapping[str, Any], prediction: Prediction | None) -> str:
    """Return the name of a target's value: a mean over voxels, or a classifier's one output."""
    single = prediction is not None and prediction.labels is None
    mean = "" if single else "mean "
    if "against" in target:
        return f"target's difference of {mean}{target['scale']}s"
    return f"target's {mean}{target['scale']}"


def format_place(target: Mapping[str, Any]) -> str:
    """Return where a target is averaged, and whether by default; empty for a classifier.

    Examples
    --------
    >>> format_place({"within": "prediction", "within_by_default": True})
    'within the prediction (the default)'
    >>> format_place({"within": "lesion 2", "within_by_default": False})
    'within lesion 2'
    """
    within = target.get("within")
    if within is None:
        return ""
    default = " (the default)" if target["within_by_default"] and within == "prediction" else ""
    where = "over the whole image" if within == "image" else f"within {place_in_words(within)}"
    return f"{where}{default}"


def peak_memory_mb() -> int | None:
    """Return the peak resident memory of this process in MB; None on Windows."""
    if find_spec("resource") is None:
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _shared_provenance(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """Return the entries of the provenance that all maps have in common, but for the versions."""
    first, *others = [each.provenance for each in explanations]
    return {
        key: value
        for key, value in first.items()
        if key not in ("citation", "versions") and all(each.get(key) == value for each in others)
    }


def _truth(case: Case) -> str:
    if case.category is not None:
        return f"in the folder {case.category}"
    return f"grade {case.grade}" if case.grade else "grade unknown"


def _format_restricted_shares(maps: Sequence[PatientMap]) -> str:
    """Return the share of each map where the target is averaged, and the chance level."""
    known = [(m.explanation.title, m.chance) for m in maps if m.chance is not None]
    if not known:
        return ""
    each = ", ".join(
        f"{title} {found.share:.0%}{'' if found.above else f' ({NOT_ABOVE_CHANCE})'}"
        for title, found in known
    )
    first = known[0][1]
    return f"{each} (chance level {first.level:.1%}, {describe_reference(first.reference)})"


def _facts(maps: Sequence[PatientMap], prediction: Prediction | None) -> dict[str, str]:
    """Return the lines of text under a montage."""
    first = maps[0]
    target = first.explanation.target
    facts = alarm_fact(first.case)
    facts[format_score(target, prediction)] = f"{first.explanation.score[0]:.4g}"
    if prediction is not None:
        facts |= _prediction_facts(first.case, prediction, str(target["name"]))
    place = format_place(target)
    if place:
        facts["averaged"] = place
        shares = _format_restricted_shares(maps)
        if shares:
            facts["share of each map there"] = shares
    facts["model"] = str(first.model["name"])
    gaps = [(m.explanation.title, gap_of(m.explanation)) for m in maps]
    known = [f"{title} {gap:.1%}" for title, gap in gaps if gap is not None]
    if known:
        facts["completeness gap"] = ", ".join(known)
    rests = [(m.explanation.title, remaining_of(m.explanation)) for m in maps]
    remain = [f"{title} {rest:.0%}" for title, rest in rests if rest is not None]
    if remain:
        facts["prediction that remains at the baseline"] = ", ".join(remain)
    lost = [f"{m.explanation.title} {m.outside:.0%}" for m in maps if m.mostly_outside]
    if lost:
        facts["mostly outside the brain"] = ", ".join(lost)
    return facts


def _prediction_facts(case: Case, prediction: Prediction, target: str) -> dict[str, str]:
    if prediction.labels is None:
        probability = prediction.probabilities.get(target)
        known = {} if probability is None else {"probability": f"{probability:.1%}"}
        return {**known, "truth": _truth(case)} if prediction.probabilities else {}
    volumes = prediction.volumes_ml()
    facts = {"predicted": ", ".join(f"{name} {ml:.1f} ml" for name, ml in volumes.items())}
    dice = prediction.dice()
    if dice:
        facts["Dice"] = ", ".join(
            # The Dice of two empty regions is 1 by convention, which would look like a success.
            f"{name} in neither" if value == 1 and not volumes[name] else f"{name} {value:.2f}"
            for name, value in dice.items()
        )
    return facts
