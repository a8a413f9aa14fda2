"""The sections of the demo's page: predictions, maps, and their completeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.data.case import Case
from neuroxai.methods import METHODS
from neuroxai.models.formats import DEFAULT_MODEL
from neuroxai.models.model import Model
from neuroxai.patient.prediction import Prediction
from neuroxai.patient.regions import format_share
from neuroxai.render.page import Figure, Section, Table
from neuroxai.reports.explain import CaseReport


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


def grading_section(out: Path, model: Model, graded: Sequence[Explained]) -> Section:
    """Return the section with the predicted grades and their maps."""
    answers = Table(
        caption="Predictions",
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
        note=f"Held-out {accuracy(model)}. The cases shown are neither in training nor in that "
        "count.",
    )
    return Section(
        heading="Showcase I: low or high grade?",
        prose=(
            "A ResNet-50 with the head of the paper's Table 1 reads one axial slice through the "
            "tumor, three modalities as its three channels. It was trained from scratch while "
            "this page was made. The maps explain the logit of the class it chose.",
        ),
        tables=(answers, _map_table(graded)),
        figures=tuple(_figure(out, picture, entry) for entry in graded for picture in
                      entry.report.montages),
    )  # fmt: skip


def segmentation_section(out: Path, entry: Explained) -> Section:
    """Return the section with the predicted regions and their maps."""
    dice, volumes = entry.prediction.dice(), entry.prediction.volumes_ml()
    answers = Table(
        caption="Prediction",
        header=("Region", "Predicted volume (ml)", "Dice with the truth"),
        rows=tuple((name, f"{volumes[name]:.1f}", f"{dice[name]:.3f}") for name in volumes),
        note="One phantom that the network was not trained on. Its card has the scores of many.",
    )
    return Section(
        heading="Showcase II: where is the tumor?",
        prose=(
            f"The shipped network {DEFAULT_MODEL}, the paper's 3D DeepSeg, reads all four "
            "modalities. A region's target is the mean of its logit over the voxels predicted as "
            "that region: why were these called tumor? The paper's own target, the mean of the "
            "probability over the whole volume, is --within image --scale probability.",
        ),
        tables=(answers, _map_table([entry])),
        figures=tuple(_figure(out, picture, entry) for picture in entry.report.montages),
    )


def _map_table(entries: Sequence[Explained]) -> Table:
    rows = []
    for entry in entries:
        shared = f"{entry.report.shared_seconds:.1f}"
        rows.append((entry.case.name, "(all)", "(shared passes)", shared, *[""] * 5))
        for target, found in entry.report.targets.items():
            for method, row in found.methods.items():
                gap = row.completeness_gap
                rows.append(
                    (
                        entry.case.name,
                        target,
                        METHODS[method].title,
                        f"{row.seconds:.1f}",
                        "" if gap is None else f"{100 * gap:.2f}",
                        "" if row.remaining is None else f"{100 * row.remaining:.1f}",
                        format_share(row.evidence, "brain"),
                        format_share(row.evidence, "WT"),
                        "; ".join(row.notes),
                    )
                )
    return Table(
        caption="The maps, and checks of them",
        header=(
            "Case",
            "Target",
            "Method",
            "Time (s)",
            "Completeness gap (%)",
            "Remains at the baseline (%)",
            "In the brain (%)",
            "In the tumor (%)",
            "Notes",
        ),
        rows=tuple(rows),
        note="Completeness gap: relative difference between the sum of a path method's "
        "attributions and the change of the target from baseline to scan; a small gap is "
        "necessary for a correct map, not sufficient. Remains at the baseline: share of the "
        "prediction that is the same there, which the map does not explain. In the brain, in the "
        "tumor: share of the map there, both signs together; in brackets: share of the volume, the "
        "value expected of an uninformative map. The gradients, the guided gradients and all class "
        "activation maps of a case come from one shared forward pass.",
    )


def _figure(out: Path, picture: Path, entry: Explained) -> Figure:
    kind = "three planes" if "planes" in picture.name else "every modality"
    target = picture.name.split("_label-")[1].split("_")[0]
    return Figure(
        file=picture.relative_to(out).as_posix(),
        alt=f"Montage of {kind} of {entry.case.name}: input, seven explanation maps for the "
        f"target {target}, overlay, prediction and truth",
        caption=f"{entry.case.name}, target {target}, {kind}.",
    )


def next_section() -> Section:
    """Return the section with the next command to run."""
    return Section(
        heading="Explain your own scan",
        prose=("A case folder in any BraTS layout, or one file for each modality:",),
        code="neuroxai explain BraTS2021_01092/ --target WT --target ET --method grad_cam "
        "--method integrated_gradients -o out/",
    )
