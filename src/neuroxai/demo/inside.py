"""The demo's third part, after the paper's Fig. 5: what happens inside the segmentation network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroxai.core.progress import Report
from neuroxai.core.target.target import Region
from neuroxai.data.case import Case
from neuroxai.files.folder import Results
from neuroxai.models.model import Model
from neuroxai.render.page import Figure, Section, Table
from neuroxai.reports.dissect import write_dissection
from neuroxai.reports.inspect import InspectionReport
from neuroxai.workflows.dissect import Dissected, Effect, dissect
from neuroxai.workflows.inspect import inspect

TARGET = "WT"


@dataclass(frozen=True)
class Inside:
    """What was found, and its two figures."""

    case: Case
    flow: Path
    found: Dissected
    chart: Path


def look_inside(
    model: Model,
    case: Case,
    cohort: Sequence[Case],
    out: Path,
    seed: int,
    tell: Report,
) -> Inside:
    """Follow one target through every layer, and dissect the network over a small cohort."""
    began = time.perf_counter()
    tell("Following the information", 0, 1)
    inspection = inspect(model, case, [Region(TARGET)])
    with Results(out / case.name) as results:
        report = InspectionReport(inspection, results)
        flow = report.write_flow(inspection.flow.targets[0])
        report.finish(seconds=time.perf_counter() - began)
    flow = results.folder / flow.name
    tell("Following the information", 1, 1)
    found = dissect(model, cohort, causal=1, others=1, seed=seed, report=tell)
    *_, chart = write_dissection(found, out)
    return Inside(case, flow, found, chart)


def inside_section(out: Path, inside: Inside) -> Section:
    """Show the flow, which layer holds which concept, and the best filter of each."""
    found = inside.found
    rows = []
    for concept in found.concepts:
        finding = found.best_filter(concept)
        match = finding.match
        rows.append((
            concept, "explicit" if finding.explicit else "implicit",
            f"{match.layer} #{match.filter}", f"{match.iou:.2f}", f"{finding.control_best:.2f}",
            f"{100 * found.shares[concept]:.1f}", *_change(found.best_effect(concept)),
        ))  # fmt: skip
    table = Table(
        caption="The best filter of each concept",
        header=(
            "Concept", "Kind", "Filter", "IoU", "IoU by chance", "Share of the voxels (%)",
            "Dice WT / TC / ET without it", "without another of its layer",
        ),
        rows=tuple(rows),
        note=f"IoU over {len(found.cases)} phantoms, at the threshold at which as many voxels are "
        "active as the concept has. By chance: the best filter of the same layer with shuffled "
        "weights; an IoU not above it means nothing. Explicit concepts were labeled in training. "
        "An IoU is a correlation; the last two columns are a cause: the change of Dice on one "
        "phantom when the filter, or another one drawn from its layer, is switched off.",
    )  # fmt: skip
    return Section(
        heading="Inside the network",
        prose=(
            "Where does the evidence for the whole tumor arise? The class activation map of every "
            "convolution, in the order the data flows, from one forward and one backward pass, "
            "after the paper's Fig. 5. And what has each filter learned to see: brain, tissues, "
            "the tumor's parts?",
        ),
        tables=(table,),
        figures=(
            Figure(
                inside.flow.relative_to(out).as_posix(),
                alt=f"Class activation maps of all layers of the network for the target {TARGET} "
                f"on {inside.case.name}: encoder down, bottom, decoder up",
                caption=f"{inside.case.name}, target {TARGET}, information flow.",
            ),
            Figure(
                inside.chart.relative_to(out).as_posix(),
                alt="Table of colors: how well the best filter of each layer finds each concept, "
                "beside chance",
                caption="Which layer holds which concept.",
            ),
        ),
    )


def _change(effect: Effect | None) -> tuple[str, str]:
    """Say the changes of Dice per region, of the filter and of the other ones."""
    if effect is None:
        return "", ""
    changes = (effect.dice, effect.control_dice)
    mine, others = (" / ".join(f"{value:+.2f}" for value in change.values()) for change in changes)
    return mine, others
