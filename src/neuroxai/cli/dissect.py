"""``neuroxai dissect``: what each filter of a network has learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.progress import stages

if TYPE_CHECKING:
    from neuroxai.workflows.dissect import Dissected

Cohort = Annotated[
    Path, typer.Argument(metavar="COHORT", help="A folder of cases in any BraTS layout.")
]
Causal = Annotated[
    int, typer.Option("--causal", min=0, help="Cases on which the best filters are switched off.")
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask", metavar="NAME=FILE",
        help="A concept of your own; {case} in the path stands for the case's name. Repeatable.",
    ),
]  # fmt: skip
Tissues = Annotated[
    bool, typer.Option("--tissues/--no-tissues", help="CSF, gray and white matter as concepts.")
]
Best = Annotated[
    int, typer.Option("--best", min=1, help="How many filters of each concept are switched off.")
]


def dissect(
    cohort: Cohort,
    model: options.ModelName = "deepseg-phantom",
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    mask: Masks = None,
    tissues: Tissues = True,
    cases: options.Limit = None,
    causal: Causal = 2,
    best: Best = 1,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    out: options.Out = None,
) -> None:
    """Find what each filter answers to over a cohort, beside chance. Not for clinical use."""
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.errors import CaseError
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.data.brats import find_cases
    from neuroxai.data.mask_files import MaskFiles
    from neuroxai.files.folder import Results, results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.dissect import write_dissection
    from neuroxai.workflows.dissect import dissect as run

    tune_allocator()
    options.check_run(device)
    own = MaskFiles(options.parse_pairs(mask, "--mask", "lesion=masks/{case}_lesion.nii.gz"))
    loaded = load_model(model, weights=weights, card=card, trust=trust)
    folders = find_cases(cohort)[:cases]
    if not folders:
        raise CaseError(f"{cohort}: holds no case; give a folder of cases in a BraTS layout")
    with Results(results_folder(out, "dissection")) as results:
        with stages() as report:
            found = run(
                loaded, folders, own=own, tissues=tissues, causal=causal, best=best, seed=seed,
                device=device, report=report,
            )  # fmt: skip
        write_dissection(found, results)
    print_dissection(found)
    console = plain()
    for note in loaded.notes:
        console.print(f"Warning: {note}", soft_wrap=True)
    console.print(f"Written: {results}", soft_wrap=True)
    console.print(NOT_FOR_CLINICAL_USE)


def print_dissection(found: Dissected) -> None:
    """Print the best filter of every concept beside chance, and what switching it off does."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = plain()
    count = len(found.cases)
    title = f"Best filter per concept, {count} case{'s' if count > 1 else ''}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("Concept", "Filter"):
        table.add_column(heading, overflow="fold")
    regions = tuple(found.effects[0].dice) if found.effects else ()
    for heading in ("IoU", "Chance", "Share", *(f"{region} off" for region in regions)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    explicit: bool | None = None
    for concept in found.concepts:
        finding = found.best_filter(concept)
        if finding.explicit is not explicit:
            explicit = finding.explicit
            table.add_row(Text("explicit" if explicit else "implicit", style="italic"))
        match, effect = finding.match, found.best_effect(concept)
        dice = effect.dice if effect is not None else {}
        table.add_row(
            concept,
            f"{match.layer} #{match.filter}",
            f"{match.iou:.2f}",
            f"{finding.control_best:.2f}",
            f"{found.shares[concept]:.1%}",
            *(f"{dice[region]:+.2f}" if region in dice else "" for region in regions),
        )
    console.print(table)
    if found.tissues_from:
        console.print(f"CSF, GM and WM: {', '.join(found.tissues_from)}.")
    console.print(
        "Implicit: never labeled in training. Chance: the best filter of the same layer with "
        "shuffled weights. Off: change of a region's Dice without the filter; an IoU is a "
        "correlation, that is a cause."
    )
