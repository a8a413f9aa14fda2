"""The sections of the demo's page: what the networks said, the maps, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.data.case import Case
from neuroxai.methods import METHODS
from neuroxai.models.formats import DEFAULT_MODEL
from neuroxai.models.model import Model
from neuroxai.patient.explanations import Explanations
from neuroxai.patient.regions import format_share
from neuroxai.render.page import Figure, Section, Table
from neuroxai.reports.explain import CaseReport


@dataclass(frozen=True)
class Explained:
    """One case with its files and pictures."""

    case: Case
    report: CaseReport
    explanations: Explanations


def accuracy(model: Model) -> str:
    """Say the held-out accuracy with its count, as the card has it."""
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
    """Return the 95 % interval of a proportion of a card, in words."""
    interval = entry.get("over_patients_95") or entry.get("wilson_95")
    # Older cards counted each slice as a patient of its own: too narrow to be repeated.
    if interval is None or (key == "slice_accuracy" and "patients" not in entry):
        return ""
    low, high = interval
    return f" (95 % interval {low:.1%} to {high:.1%})"


def label(entry: Explained) -> str | None:
    """Return the grade that the network gave a case."""
    prediction = entry.explanations.prediction
    return prediction.label if prediction is not None else None


def grading_section(out: Path, model: Model, graded: Sequence[Explained]) -> Section:
    """Show what the grading network said of each case, and why."""
    answers = Table(
        caption="What the network said",
        header=("Case", "Truth", "Predicted", "Probability of HGG"),
        rows=tuple(
            (
                entry.case.name,
                str(entry.case.grade),
                str(label(entry)),
                f"{entry.explanations.prediction.probabilities['HGG']:.1%}"
                if entry.explanations.prediction is not None
                else "",
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
    """Show what the segmentation network said, and why."""
    prediction = entry.explanations.prediction
    dice = prediction.dice() if prediction is not None else {}
    volumes = prediction.volumes_ml() if prediction is not None else {}
    answers = Table(
        caption="What the network said",
        header=("Region", "Predicted volume (ml)", "Dice with the truth"),
        rows=tuple((name, f"{volumes[name]:.1f}", f"{dice[name]:.3f}") for name in volumes),
        note="One phantom the network was not trained on; its card has the figures over many.",
    )
    return Section(
        heading="Showcase II: where is the tumor?",
        prose=(
            f"The shipped network {DEFAULT_MODEL}, the paper's 3D DeepSeg, reads all four "
            "modalities. A region's target is the mean of its logit over the volume, which makes "
            "the segmenter a classifier that every method can explain.",
        ),
        tables=(answers, _map_table([entry])),
        figures=tuple(_figure(out, picture, entry) for picture in entry.report.montages),
    )


def _map_table(entries: Sequence[Explained]) -> Table:
    rows = []
    for entry in entries:
        for target, found in entry.report.targets.items():
            shared = f"{found['shared_seconds']:.1f}"
            rows.append((entry.case.name, target, "(shared passes)", shared, *[""] * 4))
            for method, row in found["methods"].items():
                gap = row["completeness_gap"]
                rows.append(
                    (
                        entry.case.name,
                        target,
                        METHODS[method].title,
                        f"{row['seconds']:.1f}",
                        "" if gap is None else f"{100 * gap:.2f}",
                        format_share(row["evidence"], "brain"),
                        format_share(row["evidence"], "WT"),
                        "; ".join(row["notes"]),
                    )
                )
    return Table(
        caption="The maps and how far to trust them",
        header=(
            "Case",
            "Target",
            "Method",
            "Time (s)",
            "Completeness gap (%)",
            "In the brain (%)",
            "In the tumor (%)",
            "Notes",
        ),
        rows=tuple(rows),
        note="Completeness gap: how far a path method's attributions are from adding up to the "
        "change of the target between baseline and scan; 0 is exact. In the brain, in the tumor: "
        "how much of the map lies there, both signs together, and in brackets how much of the "
        "volume does, which a map that knows nothing would reach. The gradient, the guided "
        "gradient and all class activation maps come from one shared forward pass.",
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
    """Say what to type next."""
    return Section(
        heading="Explain your own scan",
        prose=("A case folder in any BraTS layout, or one file for each modality:",),
        code="neuroxai explain BraTS2021_01092/ --target WT --target ET --method grad_cam "
        "--method integrated_gradients -o out/",
    )
