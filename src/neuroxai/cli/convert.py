"""``neuroxai convert``: weights in other formats to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli.console import plain, status

convert = typer.Typer(help="Convert weights that are not read as they are.", no_args_is_help=True)


@convert.callback()
def group() -> None:
    """Convert weights that are not read as they are."""


@convert.command()
def torch(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file written by torch.save.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Default: the same name, ending in .safetensors."),
    ] = None,
    entry: Annotated[
        str | None, typer.Option("--entry", help="Where the tensors are, e.g. state_dict.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="The file comes from somebody you trust.")
    ] = False,
) -> None:
    """Turn pickled PyTorch weights to safetensors, in a process with limits."""
    from neuroxai.models.torch_weights import convert_torch

    target = out or file.with_suffix(".safetensors")
    with status(f"reading {file} ..."):
        written = convert_torch(file, target, trust=trust, entry=entry)
    plain().print(f"Written: {written}", soft_wrap=True)


@convert.command()
def keras(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Keras weights, .h5 or .hdf5.")],
    architecture: Annotated[
        str, typer.Option("--architecture", help="deepseg or resnet50v2, the paper's networks.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Checkpoint folder; default: FILE without its end."),
    ] = None,
) -> None:
    """Turn the paper's published Keras weights to a checkpoint folder, without TensorFlow."""
    from neuroxai.models.checkpoint import save_checkpoint
    from neuroxai.models.keras_weights import convert_keras

    network, card = convert_keras(file, architecture)
    folder = save_checkpoint(out or file.with_suffix(""), network, card)
    console = plain()
    console.print(f"Modalities {', '.join(card.modalities)}; classes {', '.join(card.classes)}")
    console.print(f"Written: {folder}", soft_wrap=True)
