"""``neuroxai train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli.console import plain
from neuroxai.cli.progress import stages


def train(
    config: Annotated[
        str,
        typer.Option(
            help="YAML file, or one of the package's own: brats2019-grading, "
            "brats2021-segmentation, phantom-grading, phantom-segmentation, tumor-types."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    data: Annotated[
        Path | None, typer.Option(help="Cohort folder, in place of the file's data source.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting to change, for example --set batch=2. Repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Take up the run in the folder.")] = False,
) -> None:
    """Train a network; leave a checkpoint folder with its measured metrics."""
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.models.card import read_card
    from neuroxai.training import train as run
    from neuroxai.training.loop.rank import rank

    tune_allocator()
    if rank() > 0:
        # One of several that train together: the first shows, measures and writes.
        run(config, out, data=data, overrides=settings or [], resume=resume)
        return
    with stages() as report:
        folder = run(
            config, out, data=data, overrides=settings or [], resume=resume, progress=report
        )
    card = read_card(folder / "card.json")
    console = plain(highlight=True)
    console.print(f"{card.name}: {folder}", soft_wrap=True)
    console.print_json(data=dict(card.metrics))
