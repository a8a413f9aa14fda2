"""``neuroxai dissect``: concepts that the filters of a network respond to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuroxai.cli import checks, options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.pairs import parse_paths
from neuroxai.cli.panels import method_option
from neuroxai.cli.progress import stages
from neuroxai.cli.tables import print_dissection, print_findings
from neuroxai.data.case_files import check_folder

Causal = Annotated[
    int,
    method_option("--causal", min=0, metavar="N", help="Cases for ablating the best filters."),
]
Masks = Annotated[
    list[str] | None,
    method_option(
        "--mask", metavar="NAME=FILE",
        help="Additional concept; {case} in the path is replaced by the case's name. Repeatable.",
    ),
]  # fmt: skip
Tissues = Annotated[
    bool,
    method_option("--tissues/--no-tissues", help="Use CSF, gray and white matter too."),
]
Best = Annotated[
    int, method_option("--best", min=1, metavar="N", help="Filters to ablate per concept.")
]


def dissect(
    cohort: options.Cohort,
    layout: options.LayoutName = None,
    resample_to: options.ResampleTo = None,
    split: options.Split = None,
    part: options.PartName = "test",
    cases: options.Limit = None,
    strict: options.Strict = False,
    mask: Masks = None,
    tissues: Tissues = True,
    model: options.ModelName = options.DEFAULT_MODEL,
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    output_key: options.OutputKey = None,
    causal: Causal = 2,
    best: Best = 1,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    out: options.Out = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Match the filters of a network to concepts in a cohort.

    Research use only, not for clinical use.
    """
    checks.check_run(device)
    mask_files = parse_paths(mask, "--mask", "lesion=masks/{case}_lesion.nii.gz")
    members = checks.check_split(split, part)
    check_folder(cohort, "a folder of cases")
    checks.check_layout(layout)
    checks.check_network(model, weights, card)

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.errors import CaseError
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.data.mask_files import MaskFiles
    from neuroxai.files.folder import Results
    from neuroxai.files.names import results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.dissect import write_dissection
    from neuroxai.reports.findings import describe_cohort_alarms, describe_network
    from neuroxai.workflows.dissect import dissect as run
    from neuroxai.workflows.evaluate import cases_of

    tune_allocator()
    checks.check_hardware(device)
    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    folders = list(cases_of(cohort, members, modalities=loaded.card.modalities))[:cases]
    if not folders:
        raise CaseError(f"{cohort}: contains no case; give a folder of cases in a BraTS layout")
    with Results(results_folder(out, "dissection")) as results:
        with stages(quiet=quiet) as report:
            found = run(
                loaded, folders, user_masks=MaskFiles(mask_files), tissues=tissues, causal=causal,
                best=best, seed=seed, device=device, layout=layout,
                resample_to=resample_to, progress=report, strict=strict,
            )  # fmt: skip
        write_dissection(found, results)
    alarms = describe_cohort_alarms(found.quality)
    network = describe_network(loaded.card)

    def show() -> None:
        print_findings([*alarms, network])
        print_dissection(found)
        console = plain()
        for note in loaded.notes:
            console.print(f"Warning: {note}", soft_wrap=True)
        console.print(f"Written: {results}", soft_wrap=True)
        console.print(NOT_FOR_CLINICAL_USE)

    Output(quiet, as_json).finish(
        "dissect", results, summary=Path("dissection.json"), warnings=[*alarms, *loaded.notes],
        findings=[*alarms, network], show=show,
    )  # fmt: skip
