"""Both showcases of the paper, from nothing to a page with pictures."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.case_report import CaseReport, peak_memory_mb
from neuroxai.core.explanation import NOT_FOR_CLINICAL_USE
from neuroxai.core.target import Predicted, Region, Target
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.data.phantom import write_cohort
from neuroxai.explainer import Explanations, Watcher, explain
from neuroxai.methods import METHODS, make_method
from neuroxai.methods.base import Method
from neuroxai.models.checkpoint import DEFAULT_MODEL, Model, load_model
from neuroxai.render.page import Figure, Section, Table, write_page
from neuroxai.results import Results, write_json
from neuroxai.training import train
from neuroxai.version import __version__

Report = Callable[[str, float, float], None]
"""Told of progress: the stage, how much of it is done, how much there is."""

# Two of each grade; a seed may also grow a tumor-free brain, which has no grade.
GRADING_SEEDS = (400_001, 400_004, 400_006, 400_007)
SEGMENTATION_SEED = 500_003
SPACING_MM = 2.0

# Fewer steps than the defaults, so that the demo ends in minutes; the gaps on the page say what
# that costs.
STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "grading": {
        "integrated_gradients": {"steps": 32},
        "guided_integrated_gradients": {"steps": 50},
        "smoothgrad": {"samples": 16},
    },
    "segmentation": {
        "integrated_gradients": {"steps": 16},
        "guided_integrated_gradients": {"steps": 20},
        "smoothgrad": {"samples": 8},
    },
}
_STAMP = "demo.json"


@dataclass(frozen=True)
class Demo:
    """What the demo left.

    Attributes
    ----------
    page
        ``index.html``.
    fresh
        Whether it was made now or found ready.
    facts
        What a user should see without opening the page, a line each.
    """

    page: Path
    fresh: bool
    facts: tuple[str, ...]


@dataclass(frozen=True)
class _Explained:
    """One case with its files and pictures."""

    case: Case
    report: CaseReport
    explanations: Explanations


def run(out: Path, *, seed: int = 0, report: Report | None = None) -> Demo:
    """Make cohort, networks, maps and the page; a second run finds them ready.

    Showcase I grades gliomas with a ResNet-50 that is trained here, in about two minutes;
    showcase II segments them with the shipped 3D DeepSeg. Both explain phantoms no network was
    trained on, with the paper's seven methods.
    """
    tell = report or (lambda stage, done, total: None)
    page, stamp = out / "index.html", out / _STAMP
    digest = _digest(seed)
    found = _read_stamp(stamp)
    if found.get("digest") == digest and page.is_file():
        return Demo(page, False, tuple(found["facts"]))
    began = time.perf_counter()
    work = out / f"work-{digest[:8]}"
    cases = _cases(work, tell)
    graded, grading_model = _grading(cases[:-1], out, work, seed, tell)
    segmented = _segmentation(cases[-1], out, seed, tell)
    seconds = time.perf_counter() - began
    facts = _facts(grading_model, graded, segmented, seconds)
    write_page(
        page,
        [
            _grading_section(out, grading_model, graded),
            _segmentation_section(out, segmented),
            _next_section(),
        ],
        title="NeuroXAI: why did the network say so?",
        lead=(
            "The two showcases of Zeineldin et al. 2022 (doi:10.1007/s11548-022-02619-x), on "
            "synthetic tumors grown in the MNI152 brain: no patient is shown here. All maps lie "
            "on the scan's own grid, as NIfTI with a JSON sidecar beside each.",
        ),
        footer=f"NeuroXAI {__version__}, seed {seed}; {seconds:.0f} s of work, peak memory "
        f"{peak_memory_mb()} MB in the main process.",
    )
    write_json(stamp, {"digest": digest, "facts": list(facts), "use": NOT_FOR_CLINICAL_USE})
    return Demo(page, True, facts)


def _cases(work: Path, tell: Report) -> list[Case]:
    """Grow the cases to be explained and read them back like anyone's."""
    seeds = (*GRADING_SEEDS, SEGMENTATION_SEED)
    folders = write_cohort(
        work / "cohort",
        seeds,
        spacing=SPACING_MM,
        layout="brats2020",
        workers=1,
        progress=lambda done, total: tell("Growing phantoms to explain", done, total),
    )
    return [read_case(folder) for folder in folders]


def _grading(
    cases: Sequence[Case], out: Path, work: Path, seed: int, tell: Report
) -> tuple[list[_Explained], Model]:
    folder = train(
        "phantom-grading",
        work / "grading",
        overrides=[f"seed={seed}"],
        resume=(work / "grading").exists(),
        progress=lambda stage, done, total: tell(f"Grading network: {stage.lower()}", done, total),
    )
    model = load_model(folder)
    methods = _methods("grading")
    explained = []
    for number, case in enumerate(cases):
        place = out / "showcase-1-grading" / case.name
        stage = f"Explaining grades: {number + 1} of {len(cases)}"
        explained.append(_explain(model, case, [Predicted()], methods, place, seed, stage, tell))
    return explained, model


def _segmentation(case: Case, out: Path, seed: int, tell: Report) -> _Explained:
    model = load_model(DEFAULT_MODEL)
    targets = [Region("WT"), Region("ET")]
    place = out / "showcase-2-segmentation" / case.name
    return _explain(
        model, case, targets, _methods("segmentation"), place, seed,
        "Explaining the segmentation", tell,
    )  # fmt: skip


def _explain(
    model: Model,
    case: Case,
    targets: Sequence[Target],
    methods: Sequence[Method],
    place: Path,
    seed: int,
    stage: str,
    tell: Report,
) -> _Explained:
    report = CaseReport(Results(place))
    total = len(targets) * sum(max(1, method.gradients) for method in methods)
    done = 0

    def count(samples: int) -> None:
        nonlocal done
        done = min(done + samples, total)
        tell(stage, done, total)

    began = time.perf_counter()
    for target in targets:
        explanations = explain(
            model, case, methods, target, seed=seed, watcher=Watcher(on_gradient=count)
        )
        report.add(explanations)
    tell(stage, total, total)
    report.finish(explanations, seconds=time.perf_counter() - began)
    return _Explained(case, report, explanations)


def _methods(showcase: str) -> list[Method]:
    return [make_method(name, STEPS[showcase].get(name)) for name in METHODS]


def _facts(
    grading: Model, graded: Sequence[_Explained], segmented: _Explained, seconds: float
) -> tuple[str, ...]:
    prediction = segmented.explanations.prediction
    dice = prediction.dice() if prediction is not None else {}
    right = sum(_label(entry) == entry.case.grade for entry in graded)
    return (
        f"Grading: {_accuracy(grading)}; {right} of the {len(graded)} explained cases are right",
        "Segmentation: Dice with the truth "
        + ", ".join(f"{name} {value:.2f}" for name, value in dice.items())
        + " (1 case)",
        f"Made in {seconds:.0f} s",
    )


def _accuracy(model: Model) -> str:
    """Say the held-out accuracy with its count, as the card has it."""
    metrics = model.card.metrics
    parts = []
    for unit, key in (("cases", "accuracy"), ("slices", "slice_accuracy")):
        if key in metrics:
            entry = metrics[key]
            low, high = entry["wilson_95"]
            parts.append(
                f"{entry['value']:.1%} of {entry['count']} held-out {unit} "
                f"(95 % interval {low:.1%} to {high:.1%})"
            )
    return "accuracy " + (", ".join(parts) or "not measured")


def _label(entry: _Explained) -> str | None:
    prediction = entry.explanations.prediction
    return prediction.label if prediction is not None else None


def _grading_section(out: Path, model: Model, graded: Sequence[_Explained]) -> Section:
    answers = Table(
        caption="What the network said",
        header=("Case", "Truth", "Predicted", "Probability of HGG"),
        rows=tuple(
            (
                entry.case.name,
                str(entry.case.grade),
                str(_label(entry)),
                f"{entry.explanations.prediction.probabilities['HGG']:.1%}"
                if entry.explanations.prediction is not None
                else "",
            )
            for entry in graded
        ),
        note=f"Held-out {_accuracy(model)}. The cases shown are neither in training nor in that "
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


def _segmentation_section(out: Path, entry: _Explained) -> Section:
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


def _map_table(entries: Sequence[_Explained]) -> Table:
    rows = []
    for entry in entries:
        for target, found in entry.report.targets.items():
            shared = f"{found['shared_seconds']:.1f}"
            rows.append((entry.case.name, target, "(passes that methods share)", shared, "", ""))
            for method, row in found["methods"].items():
                gap = row["completeness_gap"]
                rows.append(
                    (
                        entry.case.name,
                        target,
                        METHODS[method].title,
                        f"{row['seconds']:.1f}",
                        "" if gap is None else f"{100 * gap:.2f}",
                        "; ".join(row["notes"]),
                    )
                )
    return Table(
        caption="The maps and how far to trust them",
        header=("Case", "Target", "Method", "Time (s)", "Completeness gap (%)", "Notes"),
        rows=tuple(rows),
        note="Completeness gap: how far a path method's attributions are from adding up to the "
        "change of the target between baseline and scan; 0 is exact. The gradient, the guided "
        "gradient and all class activation maps come from one shared forward pass.",
    )


def _figure(out: Path, picture: Path, entry: _Explained) -> Figure:
    kind = "three planes" if "planes" in picture.name else "every modality"
    target = picture.name.split("_label-")[1].split("_")[0]
    return Figure(
        file=picture.relative_to(out).as_posix(),
        alt=f"Montage of {kind} of {entry.case.name}: input, seven explanation maps for the "
        f"target {target}, overlay, prediction and truth",
        caption=f"{entry.case.name}, target {target}, {kind}.",
    )


def _next_section() -> Section:
    return Section(
        heading="Explain your own scan",
        prose=("A case folder in any BraTS layout, or one file for each modality:",),
        code="neuroxai explain BraTS2021_01092/ --target WT --target ET --method grad_cam "
        "--method integrated_gradients -o out/",
    )


def _digest(seed: int) -> str:
    """Return a hash of everything the demo's result depends on: settings, code, weights."""
    digest = hashlib.sha256(json.dumps([seed, STEPS, GRADING_SEEDS, SEGMENTATION_SEED]).encode())
    package = Path(__file__).parent
    for folder, _, names in sorted(os.walk(package)):
        for name in sorted(names):
            if name.endswith((".py", ".yaml", ".jinja", ".css", ".json", ".safetensors")):
                digest.update((Path(folder) / name).read_bytes())
    return digest.hexdigest()


def _read_stamp(stamp: Path) -> dict[str, Any]:
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
