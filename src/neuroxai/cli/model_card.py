"""``neuroxai models card``: the card of a network, or a draft of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli import options
from neuroxai.cli.console import plain, status
from neuroxai.cli.output import Output
from neuroxai.cli.panels import network_option, result_option
from neuroxai.core.errors import ModelError, OutputError


def card(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="As for the option --model of other commands, or a safetensors file.",
        ),
    ],
    init: Annotated[
        bool,
        result_option("--init", help="Write the card to a file, with placeholders to fill in."),
    ] = False,
    weights: options.WeightsFile = None,
    trust: options.Trust = False,
    shape: Annotated[
        str | None,
        network_option(
            "--shape", metavar="CxXxYxZ",
            help="Channels and size of an image that the network takes, for example 4x96x96x64; "
            "default: found by trial.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        result_option(
            "-o", "--out", metavar="FILE",
            help="File to write; default: card.json next to the weights, or in this folder.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:  # fmt: skip
    """Show the card of a network, or write a draft of one with --init.

    The network runs on random images to find its channels, sizes and outputs. What it cannot tell,
    such as the names of modalities and classes, is left to fill in. Files are never overwritten.
    """
    wanted = None if shape is None else _shape(shape)
    if out is not None and init and out.exists():
        raise OutputError(f"{out}: exists and is not overwritten; choose another file with --out")

    from neuroxai.models.formats import CARD
    from neuroxai.workflows.card_draft import draft_card, write_draft

    with status(f"running {model} on random images ..."):
        draft = draft_card(model, weights=weights, trust=trust, shape=wanted)
    path = write_draft(draft, out or draft.folder / CARD) if init else None
    if as_json:
        described = {
            "card": dict(draft.table),
            "told": list(draft.told),
            "missing": draft.missing,
            "file": None if path is None else str(path.resolve()),
        }
        Output(as_json=True).print_json("models card", described)
        return
    console = plain()
    if path is None:
        typer.echo(json.dumps(dict(draft.table), indent=2, ensure_ascii=False))
        return
    for sentence in draft.told:
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"Written: {path}", soft_wrap=True, markup=False)
    if draft.missing:
        console.print("Fill in:")
    for key, expected in draft.missing.items():
        console.print(f"  {key}: {expected}", soft_wrap=True, markup=False)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().replace("×", "x").replace(",", "x").split("x")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts) or len(parts) not in (
        3, 4,
    ):  # fmt: skip
        raise ModelError(
            f"--shape is {text!r}, expected channels and two or three sizes, for example 4x96x96x64"
        )
    return tuple(int(part) for part in parts)
