"""``neuroxai train``: training of a network from a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuroxai.cli import checks, options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.panels import cohort_option, result_option, run_option
from neuroxai.cli.progress import stages


def train(
    config: Annotated[
        str,
        run_option(
            "--config",
            metavar="NAME",
            help="YAML file, or a configuration of the package: brats2019-grading, "
            "brats2021-segmentation, phantom-grading, phantom-segmentation, tumor-types.",
        ),
    ],
    out: Annotated[
        Path, result_option("-o", "--out", metavar="FOLDER", help="Folder for the run.")
    ],
    data: Annotated[
        Path | None,
        cohort_option(
            "--data",
            metavar="FOLDER",
            help="Cohort folder, in place of the configured data.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        run_option(
            "--set",
            metavar="NAME=VALUE",
            help="Setting of the configuration, for example batch=2; repeatable.",
        ),
    ] = None,
    layout: options.LayoutName = None,
    resume: Annotated[
        bool, run_option("--resume", help="Continue the interrupted run in the folder.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a network and measure its accuracy."""
    from neuroxai.training.config.config_file import read_config

    checks.check_layout(layout)
    own = [] if layout is None else [f"data.cohort.layout={layout}"]
    configuration = read_config(config, overrides=[*(settings or []), *own], data=data)

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
        with stages(quiet=quiet) as report:
            folder = run(configuration, out, resume=resume, progress=report)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interrupt into an exit.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        steps = last_step(out)
        interrupt = KeyboardInterrupt()
        kept = f"the first {steps} steps are kept; continue with --resume"
        interrupt.add_note(kept if steps else "no step was saved yet")
        raise interrupt from None
    card = read_card(folder / "card.json")
    if as_json:
        result = {"folder": str(folder.resolve()), "metrics": dict(card.metrics)}
        Output(as_json=True).print_json("train", result)
        return
    if quiet:
        plain().print(str(folder), soft_wrap=True)
        return
    console = plain(highlight=True)
    console.print(f"{card.name}: {folder}", soft_wrap=True)
    console.print_json(data=dict(card.metrics))
