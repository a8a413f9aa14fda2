"""``neuroxai evaluate``: accuracy of a network on a cohort with ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli import checks, options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.panels import run_option
from neuroxai.cli.progress import stages
from neuroxai.cli.tables import print_evaluation, print_findings
from neuroxai.data.case_files import check_folder

Cohort = Annotated[
    Path,
    typer.Argument(
        metavar="COHORT",
        help="Folder of cases with ground truth, or of 2D pictures in one folder per class.",
    ),
]
SmallestEt = Annotated[
    float | None,
    run_option(
        "--smallest-et", min=0, metavar="MM3",
        help="Relabel enhancing tumor as necrosis if its total volume is below this, as in the "
        "BraTS challenge, for example 200; default: from the network's card.",
    ),
]  # fmt: skip
SliceCount = Annotated[
    int, run_option("--slices", min=1, metavar="N", help="Slices per case for a 2D network.")
]


def evaluate(
    cohort: Cohort,
    layout: options.LayoutName = None,
    resample_to: options.ResampleTo = None,
    split: options.Split = None,
    part: options.PartName = "test",
    cases: options.Limit = None,
    strict: options.Strict = False,
    model: options.ModelName = options.DEFAULT_MODEL,
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    output_key: options.OutputKey = None,
    flips: options.Flips = False,
    smallest_et: SmallestEt = None,
    slices: SliceCount = 8,
    device: options.Device = "auto",
    memory: options.Memory = None,
    out: options.Out = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure a network's accuracy on cases with ground truth.

    Research use only, not for clinical use.
    """
    checks.check_run(device, memory)
    members = checks.check_split(split, part)
    check_folder(cohort, "a folder of cases")
    checks.check_layout(layout)
    checks.check_network(model, weights, card)

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.errors import CaseError
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.data.pictures import expects_pictures
    from neuroxai.files.folder import Results
    from neuroxai.files.names import results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.evaluate import write_evaluation
    from neuroxai.reports.findings import describe_cohort_alarms, describe_network
    from neuroxai.workflows.evaluate import Settings, cases_of
    from neuroxai.workflows.evaluate import evaluate as run

    if memory is None:  # kept memory would exceed the limit
        tune_allocator()
    checks.check_hardware(device)
    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    pictures = expects_pictures(loaded.card.modalities)
    found_cases = cases_of(cohort, members, pictures=pictures, modalities=loaded.card.modalities)
    folders = list(found_cases)[:cases]
    if not folders:
        raise CaseError(f"{cohort}: contains no case; give a folder of cases in a BraTS layout")
    settings = Settings(flips, smallest_et, slices, device, strict, layout, memory, resample_to)
    with Results(results_folder(out, "evaluation")) as results:
        with stages(quiet=quiet) as report:
            found = run(loaded, folders, settings, patients=members, progress=report)
        write_evaluation(found, results)
    alarms = describe_cohort_alarms(found.quality)
    network = describe_network(loaded.card)

    def show() -> None:
        print_findings([*alarms, network])
        print_evaluation(found)
        console = plain()
        for note in loaded.notes:
            console.print(f"Warning: {note}", soft_wrap=True)
        console.print(f"Written: {results}", soft_wrap=True)
        console.print(NOT_FOR_CLINICAL_USE)

    Output(quiet, as_json).finish(
        "evaluate", results, summary=Path("evaluation.json"), warnings=[*alarms, *loaded.notes],
        findings=[*alarms, network], show=show,
    )  # fmt: skip
