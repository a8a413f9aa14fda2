"""The paper's experiments on synthetic cases, written as a page with pictures."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
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
    answer_section,
    modality_section,
    next_section,
    place_section,
    trust_section,
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
from neuroxai.workflows.session import INFORMATION_FLOW, Session, open

# Two of each grade. A seed may also grow a brain without a tumor, which has no grade.
GRADING_SEEDS = (400_001, 400_004, 400_006, 400_007)
SEGMENTATION_SEED = 500_003
SPACING_MM = 2.0

# Fewer steps than the defaults, so that the demo ends in minutes. The page has the completeness
# gaps that result.
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
    """The result of the demo.

    Attributes
    ----------
    page
        ``index.html``.
    fresh
        Whether it was made now, or existed before.
    facts
        A summary, one line each.
    """

    page: Path
    fresh: bool
    facts: tuple[str, ...]


def run(out: Path, *, seed: int = 0, progress: Report | None = None) -> Demo:
    """Make the cohort, the networks, the maps and the page, unless they exist.

    Showcase I grades gliomas with a ResNet-50, which is trained here in two to three minutes.
    Showcase II segments them with the shipped 3D DeepSeg. Both explain phantoms that no network
    was trained on with the paper's seven methods. Then the segmentation network is inspected and
    dissected.

    Parameters
    ----------
    out
        The folder of the page.
    seed
        Seed of the training and of the maps.
    progress
        Called with the stage, the steps done, and all steps.
    """
    report = progress or (lambda stage, done, total: None)
    page, stamp = out / "index.html", out / _STAMP
    digest = _digest(seed)
    known = _read_stamp(stamp)
    if known.get("digest") == digest and page.is_file():
        return Demo(page, False, tuple(known["facts"]))
    began = time.perf_counter()
    work = out / f"work-{digest[:8]}"
    cases = _cases(work, report)
    grader = _train_grader(work, seed, report)
    graded = [
        _explain_grade(grader, case, out, seed, f"{number} of {len(cases) - 1}", report)
        for number, case in enumerate(cases[:-1], start=1)
    ]
    with open(
        load_model(DEFAULT_MODEL), cases[-1], progress=_renamed(report, _segmentation_stage)
    ) as session:
        segmented = _explain_segmentation(session, out, seed)
        inside = look_inside(session, cases[::-1][:3], out / "inside-the-network", seed, report)
    seconds = time.perf_counter() - began
    facts = _facts(grader, graded, segmented, seconds)
    write_page(
        page,
        [
            answer_section(grader, session.model, graded, segmented),
            place_section(out, graded, segmented),
            modality_section(out, graded, segmented),
            trust_section(graded, segmented),
            inside_section(out, inside),
            next_section(),
        ],
        title="NeuroXAI: why did the network say so?",
        lead=(
            "The two showcases of Zeineldin et al. 2022 (doi:10.1007/s11548-022-02619-x), on "
            "synthetic tumors grown in the MNI152 brain: no patient is shown here. All maps are "
            "on the scan's own grid, as NIfTI with a JSON sidecar.",
        ),
        footer=f"NeuroXAI {__version__}, seed {seed}; {seconds:.0f} s of work{_peak_memory()}.",
    )
    write_json(stamp, {"digest": digest, "facts": list(facts), "use": NOT_FOR_CLINICAL_USE})
    return Demo(page, True, facts)


def _cases(work: Path, report: Report) -> list[Case]:
    """Grow the cases to be explained, and read them from their files."""
    seeds = (*GRADING_SEEDS, SEGMENTATION_SEED)
    folders = write_cohort(
        work / "cohort",
        seeds,
        spacing=SPACING_MM,
        layout="brats2020",
        workers=1,
        progress=lambda done, total: report("Growing phantoms to explain", done, total),
    )
    return [read_case(folder) for folder in folders]


def _train_grader(work: Path, seed: int, report: Report) -> Model:
    folder = train(
        "phantom-grading",
        work / "grading",
        overrides=[f"seed={seed}"],
        resume=(work / "grading").exists(),
        progress=_renamed(report, lambda stage: f"Grading network: {stage.lower()}"),
    )
    return load_model(folder)


def _explain_grade(
    model: Model, case: Case, out: Path, seed: int, number: str, report: Report
) -> Explained:
    place = out / "showcase-1-grading" / case.name
    progress = _renamed(report, lambda stage: f"Explaining grades: {number}")
    with open(model, case, progress=progress) as session:
        return _explain(session, [Predicted()], _methods("grading"), place, seed)


def _segmentation_stage(stage: str) -> str:
    return "Information flow" if stage == INFORMATION_FLOW else "Explaining the segmentation"


def _renamed(report: Report, rename: Callable[[str], str]) -> Report:
    """Return a callback that reports stages by other names."""

    def renamed(stage: str, done: float, total: float) -> None:
        report(rename(stage), done, total)

    return renamed


def _explain_segmentation(session: Session, out: Path, seed: int) -> Explained:
    place = out / "showcase-2-segmentation" / session.case.name
    targets = [Region("WT"), Region("ET")]
    return _explain(session, targets, _methods("segmentation"), place, seed)


def _explain(
    session: Session,
    targets: Sequence[Target],
    methods: Sequence[Method],
    place: Path,
    seed: int,
) -> Explained:
    began = time.perf_counter()
    case_report = CaseReport(Results(place))
    for explanations in session.explain_each(methods, targets, seed=seed):
        case_report.add(explanations)
    case_report.finish(seconds=time.perf_counter() - began)
    return Explained(session.case, case_report, session.prediction)


def _methods(showcase: str) -> list[Method]:
    return [make_method(name, STEPS[showcase].get(name)) for name in PAPER]


def _peak_memory() -> str:
    peak = peak_memory_mb()
    return "" if peak is None else f", peak memory {peak} MB in the main process"


def _facts(
    grader: Model, graded: Sequence[Explained], segmented: Explained, seconds: float
) -> tuple[str, ...]:
    right = sum(entry.prediction.label == entry.case.grade for entry in graded)
    dice = segmented.prediction.dice()
    return (
        f"Grading: {accuracy(grader)}; {right} of the {len(graded)} explained cases are right",
        "Segmentation: Dice with the truth "
        + ", ".join(f"{name} {value:.2f}" for name, value in dice.items())
        + " (1 case)",
        f"Made in {seconds:.0f} s",
    )


def _digest(seed: int) -> str:
    """Return a hash of everything the result depends on: settings, code and weights."""
    digest = hashlib.sha256(json.dumps([seed, STEPS, GRADING_SEEDS, SEGMENTATION_SEED]).encode())
    package = Path(__file__).parent.parent
    for folder, _, names in sorted(os.walk(package)):
        for name in sorted(names):
            if name.endswith((".py", ".yaml", ".jinja", ".css", ".json", ".safetensors")):
                digest.update((Path(folder) / name).read_bytes())
    return digest.hexdigest()


def _read_stamp(stamp: Path) -> dict[str, Any]:
    """Return what an earlier run wrote; empty if there was none."""
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
