"""The demo's third part, after the paper's Fig. 5: inspection and dissection of the segmenter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroxai.core.progress import Report
from neuroxai.core.target.target import Region
from neuroxai.data.case import Case
from neuroxai.files.folder import Results
from neuroxai.render.page import Figure, Section, Table
from neuroxai.reports.dissect import write_dissection
from neuroxai.reports.inspect import InspectionReport
from neuroxai.workflows.dissect import Dissected, Effect, dissect
from neuroxai.workflows.session import Session

TARGET = "WT"


@dataclass(frozen=True)
class Inside:
    """The dissection, and the figures of the information flow and of the concepts."""

    case: Case
    flow: Path
    dissected: Dissected
    chart: Path


def look_inside(
    session: Session, cohort: Sequence[Case], out: Path, seed: int, report: Report
) -> Inside:
    """Draw the information flow of one target, and dissect the network on a small cohort."""
    began = time.perf_counter()
    inspection = session.inspect([Region(TARGET)])
    with Results(out / session.case.name) as results:
        files = InspectionReport(inspection, results)
        flow = files.write_flow(inspection.flow.targets[0])
        files.finish(seconds=time.perf_counter() - began)
    dissected = dissect(session.model, cohort, causal=1, others=1, seed=seed, progress=report)
    *_, chart = write_dissection(dissected, out)
    return Inside(session.case, results.folder / flow.name, dissected, chart)


def inside_section(out: Path, inside: Inside) -> Section:
    """Return the section with the information flow, the concepts and their best filters."""
    found = inside.dissected
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
        "weights; an IoU not above it carries no information. Explicit concepts were labeled in "
        "training. An IoU is a correlation. The last two columns show causal effects: the change "
        "of Dice on one phantom if the filter, or a random other filter of its layer, is ablated.",
    )  # fmt: skip
    return Section(
        heading="Inside the network",
        prose=(
            "Where does the evidence for the whole tumor arise? The figure shows the class "
            "activation map of every convolution, in the order of the forward pass, after the "
            "paper's Fig. 5. The table shows what each filter responds to: brain, tissues, or "
            "parts of the tumor.",
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
                alt="Heat map: IoU of the best filter of each layer with each concept, next to the "
                "IoU by chance",
                caption="Concepts by layer.",
            ),
        ),
    )


def _change(effect: Effect | None) -> tuple[str, str]:
    """Format the changes of Dice per region, for the filter and for other filters."""
    if effect is None:
        return "", ""
    changes = (effect.dice, effect.control_dice)
    filter_, others = (" / ".join(f"{v:+.2f}" for v in change.values()) for change in changes)
    return filter_, others
