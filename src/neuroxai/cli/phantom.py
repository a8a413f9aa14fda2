"""``neuroxai phantom``: a synthetic cohort on real anatomy, in a BraTS layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli.console import plain
from neuroxai.cli.progress import stages


def phantom(
    out: Annotated[Path, typer.Option("-o", "--out", help="The cohort's folder.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of cases.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first case.")] = 0,
    spacing: Annotated[float, typer.Option("--spacing", help="Voxel edge in mm.")] = 1.0,
    layout: Annotated[str, typer.Option("--layout", help="Names and labels.")] = "brats2021",
    variant: Annotated[
        str | None, typer.Option("--variant", help="A planted cause of the grade.")
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Draw far beyond the typical case, to train on.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
) -> None:
    """Make synthetic tumor cases whose truth is known; each is a function of its seed."""
    from neuroxai.data.phantom import write_cohort

    with stages() as report:
        folders = write_cohort(
            out,
            range(seed, seed + count),
            spacing=spacing,
            layout=layout,
            variant=variant,
            wide=wide,
            workers=workers,
            progress=lambda done, total: report("Growing tumors", done, total),
        )
    plain().print(f"Written: {len(folders)} cases in {out}", soft_wrap=True)
