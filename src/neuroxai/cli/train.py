"""``neuroxai train``: training of a network from a configuration."""

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
            help="YAML file, or a configuration of the package: brats2019-grading, "
            "brats2021-segmentation, phantom-grading, phantom-segmentation, tumor-types."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Cohort folder; replaces the data source of the configuration."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, for example --set batch=2; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Resume the run in the folder.")] = False,
) -> None:
    """Train a network and measure its accuracy."""
    from neuroxai.training.config.config_file import read_config

    configuration = read_config(config, overrides=settings or [], data=data)

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.models.card import read_card
    from neuroxai.training import train as run
    from neuroxai.training.loop.loop import last_step
    from neuroxai.training.loop.rank import rank

    tune_allocator()
    if rank() > 0:
        # In distributed training, only the first process prints, evaluates and writes.
        run(configuration, out, resume=resume)
        return
    try:
        with stages() as report:
            folder = run(configuration, out, resume=resume, progress=report)
    except KeyboardInterrupt as stop:
        steps = last_step(out)
        kept = f"the first {steps} steps are kept; continue with --resume"
        stop.add_note(kept if steps else "no step was saved yet")
        raise
    card = read_card(folder / "card.json")
    console = plain(highlight=True)
    console.print(f"{card.name}: {folder}", soft_wrap=True)
    console.print_json(data=dict(card.metrics))
