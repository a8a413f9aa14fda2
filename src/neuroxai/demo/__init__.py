"""The paper's experiments, from nothing to a page with pictures."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.core.progress import Report
from neuroxai.core.target.target import Predicted, Region, Target
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.data.phantom import write_cohort
from neuroxai.demo.inside import inside_section, look_inside
from neuroxai.demo.sections import (
    Explained,
    accuracy,
    grading_section,
    label,
    next_section,
    segmentation_section,
)
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import Results
from neuroxai.methods import PAPER, make_method
from neuroxai.methods.base import Method
from neuroxai.models.formats import DEFAULT_MODEL
from neuroxai.models.loading import load_model
from neuroxai.models.model import Model
from neuroxai.render.page import write_page
from neuroxai.reports.explain import CaseReport, peak_memory_mb
from neuroxai.training import train
from neuroxai.version import __version__
from neuroxai.workflows.explain import Watcher, explain

# Two of each grade; a seed may also grow a tumor-free brain, which has no grade.
GRADING_SEEDS = (400_001, 400_004, 400_006, 400_007)
SEGMENTATION_SEED = 500_003
SPACING_MM = 2.0

# Fewer steps than the defaults, so that the demo ends in minutes; the gaps on the page say what
# that costs.
STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "grading": {
        "guided_integrated_gradients": {"steps": 50},
        "smoothgrad": {"samples": 16},
    },
    "segmentation": {
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


def run(out: Path, *, seed: int = 0, report: Report | None = None) -> Demo:
    """Make cohort, networks, maps and the page; a second run finds them ready.

    Showcase I grades gliomas with a ResNet-50 that is trained here, in two to three minutes;
    showcase II segments them with the shipped 3D DeepSeg. Both explain phantoms no network was
    trained on, with the paper's seven methods; then the segmentation network is looked into.
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
    segmenter = load_model(DEFAULT_MODEL)
    segmented = _segmentation(segmenter, cases[-1], out, seed, tell)
    place = out / "inside-the-network"
    inside = look_inside(segmenter, cases[-1], cases[::-1][:3], place, seed, tell)
    seconds = time.perf_counter() - began
    facts = _facts(grading_model, graded, segmented, seconds)
    write_page(
        page,
        [
            grading_section(out, grading_model, graded),
            segmentation_section(out, segmented),
            inside_section(out, inside),
            next_section(),
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
) -> tuple[list[Explained], Model]:
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


def _segmentation(model: Model, case: Case, out: Path, seed: int, tell: Report) -> Explained:
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
) -> Explained:
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
    return Explained(case, report, explanations)


def _methods(showcase: str) -> list[Method]:
    return [make_method(name, STEPS[showcase].get(name)) for name in PAPER]


def _facts(
    grading: Model, graded: Sequence[Explained], segmented: Explained, seconds: float
) -> tuple[str, ...]:
    prediction = segmented.explanations.prediction
    dice = prediction.dice() if prediction is not None else {}
    right = sum(label(entry) == entry.case.grade for entry in graded)
    return (
        f"Grading: {accuracy(grading)}; {right} of the {len(graded)} explained cases are right",
        "Segmentation: Dice with the truth "
        + ", ".join(f"{name} {value:.2f}" for name, value in dice.items())
        + " (1 case)",
        f"Made in {seconds:.0f} s",
    )


def _digest(seed: int) -> str:
    """Return a hash of everything the demo's result depends on: settings, code, weights."""
    digest = hashlib.sha256(json.dumps([seed, STEPS, GRADING_SEEDS, SEGMENTATION_SEED]).encode())
    package = Path(__file__).parent.parent
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
