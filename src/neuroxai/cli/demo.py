"""``neuroxai demo``: the two applications of the paper on synthetic scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.panels import result_option, run_option
from neuroxai.cli.progress import stages


def demo(
    out: Annotated[
        Path, result_option("-o", "--out", metavar="FOLDER", help="Folder for the page.")
    ] = Path("demo"),
    seed: Annotated[int, run_option("--seed", metavar="N", help="Seed of training and maps.")] = 0,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Run both applications of the paper on synthetic gliomas."""
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.demo import run

    tune_allocator()
    try:
        with stages(quiet=quiet) as report:
            made = run(out, seed=seed, progress=report)
    except KeyboardInterrupt as stop:
        stop.add_note(f"cases and trained steps in {out} are kept; run the command again")
        raise
    if as_json:
        result = {"page": str(made.page.resolve()), "fresh": made.fresh, "facts": list(made.facts)}
        Output(as_json=True).print_json("demo", result)
        return
    console = plain()
    if quiet:
        console.print(str(made.page.resolve()), soft_wrap=True)
        return
    for fact in made.facts:
        console.print(fact, soft_wrap=True)
    console.print(
        f"{'Written' if made.fresh else 'Up to date'}: {made.page.resolve()}", soft_wrap=True
    )
    console.print(NOT_FOR_CLINICAL_USE)
