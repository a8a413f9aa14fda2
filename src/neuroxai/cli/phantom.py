"""``neuroxai phantom``: a cohort of synthetic tumors in real anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli.console import plain
from neuroxai.cli.progress import stages


def phantom(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the cohort.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of cases.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first case.")] = 0,
    spacing: Annotated[float, typer.Option("--spacing", help="Voxel size in mm.")] = 1.0,
    layout: Annotated[
        str, typer.Option("--layout", help="Layout of file names and label numbers.")
    ] = "brats2021",
    variant: Annotated[
        str | None, typer.Option("--variant", help="Planted cause of the tumor grade.")
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Vary the cases more widely, for training.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of processes.")] = 1,
) -> None:
    """Generate synthetic tumor cases with ground truth."""
    from neuroxai.data.phantom import write_cohort

    try:
        with stages() as report:
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
    plain().print(f"Written: {len(folders)} cases in {out}", soft_wrap=True)
