"""``neuroxai demo``: the two applications of the paper on synthetic scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli.console import plain
from neuroxai.cli.progress import stages


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the page.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="Seed of training and maps.")] = 0,
) -> None:
    """Run both applications of the paper on synthetic gliomas."""
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.demo import run

    tune_allocator()
    try:
        with stages() as report:
            made = run(out, seed=seed, progress=report)
    except KeyboardInterrupt as stop:
        stop.add_note(f"cases and trained steps in {out} are kept; run the command again")
        raise
    console = plain()
    for fact in made.facts:
        console.print(fact, soft_wrap=True)
    console.print(
        f"{'Written' if made.fresh else 'Up to date'}: {made.page.resolve()}", soft_wrap=True
    )
    console.print(NOT_FOR_CLINICAL_USE)
