"""``neuroxai evaluate``: how good a network's answers are over a cohort with truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.progress import stages

if TYPE_CHECKING:
    from neuroxai.workflows.evaluate import Evaluation

Cohort = Annotated[
    Path,
    typer.Argument(
        metavar="COHORT", help="Cases with truth in a BraTS layout, or pictures in class folders."
    ),
]
Split = Annotated[
    Path | None, typer.Option("--split", help="split.csv of a training run; only its part counts.")
]
PartName = Annotated[str, typer.Option("--part", help="Of the split: train, validation or test.")]
Flips = Annotated[
    bool, typer.Option("--flips", help="Ask about every mirror image too, and take the mean.")
]
SmallestEt = Annotated[
    float | None,
    typer.Option(
        "--smallest-et", min=0, metavar="MM3",
        help="Call enhancing tumor of less in all necrosis, as in the BraTS challenge, e.g. 200; "
        "by default as the network's card says.",
    ),
]  # fmt: skip
SliceCount = Annotated[
    int, typer.Option("--slices", min=1, help="Slices of each case for a 2D network.")
]


def evaluate(
    cohort: Cohort,
    model: options.ModelName = "deepseg-phantom",
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    split: Split = None,
    part: PartName = "test",
    flips: Flips = False,
    smallest_et: SmallestEt = None,
    slices: SliceCount = 8,
    cases: options.Limit = None,
    device: options.Device = "auto",
    out: options.Out = None,
) -> None:
    """Measure a network on cases with truth, as in the paper's tables. Not for clinical use."""
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.errors import CaseError
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.data.pictures import expects_pictures
    from neuroxai.files.folder import Results, results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.evaluate import write_evaluation
    from neuroxai.workflows.evaluate import Settings, cases_of
    from neuroxai.workflows.evaluate import evaluate as run

    tune_allocator()
    options.check_run(device)
    members = _members(split, part) if split is not None else None
    loaded = load_model(model, weights=weights, card=card, trust=trust)
    pictures = expects_pictures(loaded.card.modalities)
    folders = list(cases_of(cohort, members, pictures=pictures))[:cases]
    if not folders:
        raise CaseError(f"{cohort}: holds no case; give a folder of cases in a BraTS layout")
    settings = Settings(flips, smallest_et, slices, device)
    with Results(results_folder(out, "evaluation")) as results:
        with stages() as report:
            found = run(loaded, folders, settings, patients=members, report=report)
        write_evaluation(found, results)
    print_evaluation(found)
    console = plain()
    for note in loaded.notes:
        console.print(f"Warning: {note}", soft_wrap=True)
    console.print(f"Written: {results}", soft_wrap=True)
    console.print(NOT_FOR_CLINICAL_USE)


def print_evaluation(found: Evaluation) -> None:
    """Print the figures with their intervals."""
    from rich import box
    from rich.table import Table

    from neuroxai.reports.evaluation_scores import cautions, grading_scores, segmentation_scores

    cases = len(found.segmented or found.graded)
    title = f"{found.model['name']} on {found.data}, {cases} case{'s' if cases > 1 else ''}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("")
    notes: list[str] = []
    if found.segmented:
        for heading in ("Dice %", "HD95 mm", "median"):
            table.add_column(heading, justify="right")
        notes += _format_missing(found)
        for name, figures in segmentation_scores(found).items():
            table.add_row(
                name,
                figures["dice"].percent(),
                figures["hausdorff95_mm"].plain(1),
                figures["hausdorff95_median_mm"].plain(1),
            )
    else:
        of_cases, of_slices = grading_scores(found)
        for unit in (of_cases,) if found.pictures else (of_cases, of_slices):
            accuracy = unit.accuracy.percent()
            notes.append(f"Accuracy per {unit.unit}: {accuracy} % of {unit.count}.")
        for heading in ("Sensitivity %", "Specificity %", "Area"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name in found.classes:
            table.add_row(
                name,
                of_cases.sensitivity[name].percent(),
                of_cases.specificity[name].percent(),
                of_cases.roc_auc[name].plain(2),
            )
    console = plain()
    console.print(table)
    for note in (*notes, *(f"Caution: {caution}." for caution in cautions(found))):
        console.print(note, soft_wrap=True)
    if found.left_out:
        name, reason = next(iter(found.left_out.items()))
        console.print(f"Left out: {len(found.left_out)}, for example {name}: {reason}.")


def _format_missing(found: Evaluation) -> list[str]:
    """Say which means hold cases without the region, and what they are without those."""
    from neuroxai.reports.evaluation_scores import cases_with_region, segmentation_scores

    figures = segmentation_scores(found)
    said = [
        f"{name}: in {count} of {len(found.segmented)} cases; Dice over those "
        f"{figures[name]['dice_where_present'].percent()}."
        for name, count in cases_with_region(found).items()
        if count < len(found.segmented)
    ]
    if said:
        said.append("A region that is empty in both counts as Dice 1 and 0 mm, as in BraTS.")
    return said


def _members(split: Path, part: str) -> dict[str, str]:
    """Return case name to patient of one part of a split."""
    from neuroxai.core.errors import TrainingError, suggestion
    from neuroxai.training.data.split import PARTS, read_split

    if part not in PARTS:
        raise TrainingError(f"--part {part!r}: {suggestion(part, PARTS)}")
    members = {member.case: member.patient for member in read_split(split) if member.part == part}
    if not members:
        raise TrainingError(f"{split}: no case plays the part {part}")
    return members
