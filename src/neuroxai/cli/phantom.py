"""``neuroxai phantom``: a cohort of synthetic tumors in real anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.panels import cohort_option, result_option, run_option
from neuroxai.cli.progress import stages


def phantom(
    out: Annotated[
        Path, result_option("-o", "--out", metavar="FOLDER", help="Folder for the cohort.")
    ],
    count: Annotated[
        int, cohort_option("--count", "-n", min=1, metavar="N", help="Number of cases.")
    ] = 1,
    seed: Annotated[int, cohort_option("--seed", metavar="N", help="Seed of the first case.")] = 0,
    spacing: Annotated[
        float, cohort_option("--spacing", metavar="MM", help="Edge of a voxel in mm.")
    ] = 1.0,
    layout: Annotated[
        str,
        cohort_option(
            "--layout", metavar="NAME", help="File names and label numbers, for example brats2020."
        ),
    ] = "brats2021",
    variant: Annotated[
        str | None,
        cohort_option("--variant", metavar="NAME", help="Planted cause of the tumor grade."),
    ] = None,
    wide: Annotated[
        bool, cohort_option("--wide", help="Vary the cases more widely, for training.")
    ] = False,
    workers: Annotated[
        int, run_option("--workers", min=1, metavar="N", help="Number of processes.")
    ] = 1,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Generate synthetic tumor cases with ground truth."""
    from neuroxai.data.phantom import write_cohort

    try:
        with stages(quiet=quiet) as report:
            folders = write_cohort(
                out,
                range(seed, seed + count),
                spacing=spacing,
                layout=layout,
                variant=variant,
                wide=wide,
                workers=workers,
                progress=lambda done, total: report("Generating cases", done, total),
            )
    except KeyboardInterrupt as stop:
        stop.add_note(f"complete cases in {out} are kept; run the command again for the rest")
        raise
    if as_json:
        result = {"cohort": str(out.resolve()), "cases": [str(path.resolve()) for path in folders]}
        Output(as_json=True).print_json("phantom", result)
        return
    if quiet:
        for path in folders:
            plain().print(str(path), soft_wrap=True)
        return
    count = len(folders)
    plain().print(f"Written: {count} case{'s' if count != 1 else ''} in {out}", soft_wrap=True)
