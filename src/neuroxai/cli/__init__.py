"""The command line: one command per file. Only this room prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from neuroxai.cli.check import check
from neuroxai.cli.convert import convert
from neuroxai.cli.demo import demo
from neuroxai.cli.dissect import dissect
from neuroxai.cli.evaluate import evaluate
from neuroxai.cli.explain import explain
from neuroxai.cli.inspect import inspect
from neuroxai.cli.measure import measure
from neuroxai.cli.methods import methods
from neuroxai.cli.metrics import metrics
from neuroxai.cli.models import models
from neuroxai.cli.panels import Command, Commands, example
from neuroxai.cli.phantom import phantom
from neuroxai.cli.predict import predict
from neuroxai.cli.shapley import shapley
from neuroxai.cli.termination import INTERRUPTED, InterruptedRunError, exit_on_sigterm
from neuroxai.cli.train import train
from neuroxai.core.errors import NeuroXAIError
from neuroxai.version import __version__

app = typer.Typer(
    name="neuroxai",
    cls=Commands,
    help="Explain deep networks that read brain MRI. Research use only, not for clinical use.",
    no_args_is_help=True,
    epilog=example("neuroxai explain BraTS2021_01092/ --target ET"),
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PANELS: dict[str, dict[Callable[..., None], str]] = {
    "Ask a network": {
        explain: example(
            "neuroxai explain BraTS2021_01092/ --target ET --method grad_cam",
            "neuroxai explain BraTS2021_01092/ --target WT --within lesion:1 --method all",
        ),
        predict: example("neuroxai predict BraTS2021_01092/ -o out/"),
        inspect: example("neuroxai inspect BraTS2021_01092/ --target ET --filters L3"),
        shapley: example("neuroxai shapley BraTS2021_01092/ --target ET"),
        measure: example("neuroxai measure BraTS2021_01092/ --method grad_cam --metric deletion"),
        check: example("neuroxai check BraTS2021_01092/"),
    },
    "Study a cohort": {
        evaluate: example("neuroxai evaluate cohort/ --model run/ --split run/split.csv"),
        dissect: example("neuroxai dissect cohort/ --cases 20"),
        train: example("neuroxai train --config phantom-grading -o run/"),
        phantom: example("neuroxai phantom -n 10 --spacing 2 -o cohort/"),
    },
    "Learn": {
        methods: example("neuroxai methods"),
        metrics: example("neuroxai metrics deletion"),
        demo: example("neuroxai demo -o demo/"),
    },
}
"""Commands by panel of the help, each with examples."""

for panel, several in PANELS.items():
    for command, lines in several.items():
        app.command(cls=Command, rich_help_panel=panel, epilog=lines)(command)
app.add_typer(models, name="models", rich_help_panel="Bring a network")
app.add_typer(convert, name="convert", rich_help_panel="Bring a network")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"neuroxai {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Explain deep networks that read brain MRI. Research use only, not for clinical use."""


def main() -> None:
    """Run the command line; errors are printed as one sentence, without a traceback."""
    try:
        with exit_on_sigterm():
            app()
    except NeuroXAIError as error:
        _fail(str(error), 1)
    except (InterruptedRunError, KeyboardInterrupt) as stop:
        _fail(str(stop) or "interrupted", INTERRUPTED)
    except MemoryError:
        _fail("out of memory: request fewer methods at once, or use a smaller image", 1)
    except Exception as error:
        if os.environ.get("NEUROXAI_DEBUG"):
            raise
        _fail(
            f"internal error ({type(error).__name__}: {error}); run again with NEUROXAI_DEBUG=1 "
            "and report the output",
            70,
        )


def _fail(sentence: str, code: int) -> None:
    line = " ".join(sentence.split())
    typer.echo(f"neuroxai: {line}", err=True)
    sys.exit(code)
