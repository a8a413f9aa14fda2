"""The sections of the demo's page, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.data.case import Case
from neuroxai.inspection.chance import format_chance
from neuroxai.methods import METHODS
from neuroxai.models.formats import DEFAULT_MODEL
from neuroxai.models.model import Model
from neuroxai.patient.prediction import Prediction
from neuroxai.patient.regions import format_share
from neuroxai.render.page import Figure, Section, Table
from neuroxai.reports.explain import CaseReport, format_place
from neuroxai.reports.explain_summary import MapSummary, TargetSummary
from neuroxai.reports.findings import describe_network, describe_prediction, describe_target

_PLANES = "planes"
"""Part of the name of the figure in three planes; the other figure is by modality."""


@dataclass(frozen=True)
class Explained:
    """One explained case: its files and pictures, and the prediction."""

    case: Case
    report: CaseReport
    prediction: Prediction


def accuracy(model: Model) -> str:
    """Format the held-out accuracy and its count from the model's card."""
    metrics = model.card.metrics
    parts = []
    for unit, key in (("cases", "accuracy"), ("slices", "slice_accuracy")):
        if key in metrics:
            entry = metrics[key]
            parts.append(
                f"{entry['value']:.1%} of {entry['count']} held-out {unit}{_interval(key, entry)}"
            )
    return "accuracy " + (", ".join(parts) or "not measured")


def _interval(key: str, entry: Mapping[str, Any]) -> str:
    """Format the 95 % interval of a proportion in a card."""
    interval = entry.get("over_patients_95") or entry.get("wilson_95")
    # Older cards treated slices as independent, so that their intervals are too narrow.
    if interval is None or (key == "slice_accuracy" and "patients" not in entry):
        return ""
    low, high = interval
    return f" (95 % interval {low:.1%} to {high:.1%})"


def answer_section(
    grader: Model, segmenter: Model, graded: Sequence[Explained], segmented: Explained
) -> Section:
    """Return the section on what both networks predicted, next to the truth."""
    right = sum(entry.prediction.label == entry.case.grade for entry in graded)
    grades = Table(
        caption="Showcase I: low or high grade?",
        header=("Case", "Truth", "Predicted", "Probability of HGG"),
        rows=tuple(
            (
                entry.case.name,
                str(entry.case.grade),
                str(entry.prediction.label),
                f"{entry.prediction.probabilities['HGG']:.1%}",
            )
            for entry in graded
        ),
        note=f"Held-out {accuracy(grader)}. The cases shown are neither in training nor in that "
        "count.",
    )
    dice, volumes = segmented.prediction.dice(), segmented.prediction.volumes_ml()
    regions = Table(
        caption="Showcase II: where is the tumor?",
        header=("Region", "Predicted volume (ml)", "Dice with the truth"),
        rows=tuple((name, f"{volumes[name]:.1f}", f"{dice[name]:.3f}") for name in volumes),
        note="One phantom that the network was not trained on. Its card has the scores of many.",
    )
    return Section(
        heading="What did the networks say?",
        prose=(
            "Grading: a ResNet-50 with the head of the paper's Table 1 reads one axial slice "
            "through the tumor, three modalities as its three channels. It was trained from "
            f"scratch while this page was made. {right} of the {len(graded)} grades are right.",
            f"Segmentation: {DEFAULT_MODEL}, the paper's 3D DeepSeg, reads all four modalities. "
            + " ".join(
                (describe_network(segmenter.card), *describe_prediction(segmented.prediction))
            ),
        ),
        tables=(grades, regions),
    )


def place_section(out: Path, graded: Sequence[Explained], segmented: Explained) -> Section:
    """Return the section on where the maps are."""
    rows = tuple(
        (
            entry.case.name,
            target,
            METHODS[method].title,
            format_chance(row.chance),
            format_share(row.evidence, "WT"),
            format_share(row.evidence, "brain"),
            "" if row.location is None else f"{row.location.side}, centered {row.location}",
        )
        for entry, target, _, method, row in _maps([*graded, segmented])
    )
    table = Table(
        caption="Where the maps are",
        header=(
            "Case",
            "Target",
            "Method",
            "Where it is averaged (%)",
            "In the tumor (%)",
            "In the brain (%)",
            "Place",
        ),
        rows=rows,
        note="Share of the map in each part, both signs together; in brackets: share of the "
        "volume. Where the target is averaged, in brackets: the largest share of a map that knows "
        "nothing of the network (uniform in the brain, brightness or edges of a modality).",
    )
    asked = (
        describe_target(name, summary, segmented.prediction)[0]
        for name, summary in segmented.report.targets.items()
    )
    return Section(
        heading="Why here?",
        prose=(
            "A map gives every voxel its part in the answer. Red speaks for the target, blue "
            "against it. The maps of a grade explain the logit of the class that was predicted, "
            "those of a segmented region the mean of its logit over the voxels predicted as that "
            "region: why were these called tumor? The paper's own target, the mean of the "
            "probability over the whole volume, is --within image --scale probability.",
            " ".join(asked),
        ),
        figures=_figures(out, [segmented], planes=True),
        tables=(table,),
    )


def modality_section(out: Path, graded: Sequence[Explained], segmented: Explained) -> Section:
    """Return the section on which modality carries the evidence."""
    known = [each for each in _maps([*graded, segmented]) if each[-1].modalities]
    names = tuple(
        name for name in segmented.case.volumes if any(name in row.modalities for *_, row in known)
    )
    table = Table(
        caption="Which modality carries each map",
        header=("Case", "Target", "Method", *(f"{name} (%)" for name in names), "Strongest"),
        rows=tuple(
            (
                entry.case.name,
                target,
                METHODS[method].title,
                *(_format_modality(row, name) for name in names),
                next(iter(row.modalities)),
            )
            for entry, target, _, method, row in known
        ),
        note="Share of the map in each modality, of absolute values; in brackets: net share, "
        "positive if the modality speaks for the target. Class activation maps belong to all "
        "modalities together and are not listed.",
    )
    return Section(
        heading="Which modality?",
        prose=(
            "Each modality carries its own part of a map, drawn over that modality, with its share "
            "in the corner. Radiologists read the enhancing core on T1ce and the whole tumor on "
            "FLAIR; a network may use other evidence.",
        ),
        figures=_figures(out, [segmented, *graded], planes=False),
        tables=(table,),
    )


def trust_section(graded: Sequence[Explained], segmented: Explained) -> Section:
    """Return the section on how exact the maps are."""
    rows = []
    for entry in (*graded, segmented):
        shared = f"{entry.report.shared_seconds:.1f}"
        rows.append((entry.case.name, "(all)", "(shared passes)", shared, *[""] * 4))
        for _, target, _, method, row in _maps([entry]):
            gap, error = row.completeness_gap, row.diagnostics.get("relative_standard_error")
            rows.append(
                (
                    entry.case.name,
                    target,
                    METHODS[method].title,
                    f"{row.seconds:.1f}",
                    "" if gap is None else f"{100 * gap:.2f}",
                    "" if row.remaining is None else f"{100 * row.remaining:.1f}",
                    "" if error is None else f"{100 * error:.1f}",
                    "; ".join(row.notes),
                )
            )
    table = Table(
        caption="Checks of the maps",
        header=(
            "Case",
            "Target",
            "Method",
            "Time (s)",
            "Completeness gap (%)",
            "Remains at the baseline (%)",
            "Standard error (%)",
            "Notes",
        ),
        rows=tuple(rows),
        note="Completeness gap: relative difference between the sum of a path method's "
        "attributions and the change of the target from baseline to scan. Remains at the "
        "baseline: share of the prediction that is the same there, which the map does not "
        "explain. Standard error: of SmoothGrad, relative to its map. The gradients, the guided "
        "gradients and all class activation maps of a case come from one shared forward pass.",
    )
    return Section(
        heading="How far to trust it?",
        prose=(
            "A map can look convincing and be wrong. A small completeness gap is necessary for a "
            "correct map, not sufficient. A map with no larger share in the tumor than the tumor's "
            "share of the volume says nothing about the tumor, whatever its picture. Read the "
            "notes before the picture.",
        ),
        tables=(table,),
    )


def _maps(
    entries: Sequence[Explained],
) -> Iterator[tuple[Explained, str, TargetSummary, str, MapSummary]]:
    """Yield every map: its case, target, method and summary."""
    for entry in entries:
        for target, summary in entry.report.targets.items():
            for method, row in summary.methods.items():
                yield entry, target, summary, method, row


def _format_modality(row: MapSummary, name: str) -> str:
    share = row.modalities.get(name)
    return "" if share is None else f"{100 * share.absolute:.0f} ({100 * share.signed:+.0f})"


def _figures(out: Path, entries: Sequence[Explained], *, planes: bool) -> tuple[Figure, ...]:
    return tuple(
        _figure(out, entry, target, summary, name)
        for entry in entries
        for target, summary in entry.report.targets.items()
        for name in summary.montages
        if (_PLANES in name) is planes
    )


def _figure(out: Path, entry: Explained, target: str, summary: TargetSummary, name: str) -> Figure:
    kind = "three planes" if _PLANES in name else "every modality"
    place = format_place(summary.target)
    about = ", ".join(filter(None, (entry.case.name, f"target {target}", place, kind)))
    titles = ", ".join(METHODS[method].title for method in summary.methods)
    return Figure(
        file=(entry.report.results.folder / name).relative_to(out).as_posix(),
        alt=f"{about}: scan, maps ({titles}) over the scan with the outlines of prediction and "
        "truth, prediction and truth",
        caption=f"{about}.",
    )


def next_section() -> Section:
    """Return the section with the next command to run."""
    return Section(
        heading="Explain your own scan",
        prose=("A case folder in any BraTS layout, or one file for each modality:",),
        code="neuroxai explain BraTS2021_01092/ --target WT --target ET --method grad_cam "
        "--method integrated_gradients -o out/",
    )
