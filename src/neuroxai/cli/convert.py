"""``neuroxai convert``: conversion of weights to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli.console import plain, status

convert = typer.Typer(
    help="Convert weights from other formats to safetensors.", no_args_is_help=True
)


@convert.callback()
def group() -> None:
    """Convert weights from other formats to safetensors."""


@convert.command()
def torch(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File written by torch.save.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Output file; default: FILE with the suffix .safetensors."
        ),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(
            "--entry",
            help="Key of the tensors in the file, for example state_dict or state_dict.student.",
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Confirm that the file comes from a trusted source.")
    ] = False,
) -> None:
    """Convert pickled PyTorch weights to safetensors, in a process with limited resources."""
    from neuroxai.models.torch_weights import convert_torch, left_aside

    target = out or file.with_suffix(".safetensors")
    with status(f"reading {file} ..."):
        written = convert_torch(file, target, trust=trust, entry=entry)
    aside = left_aside(written)
    if aside:
        plain().print(f"Left aside: {aside}", soft_wrap=True)
    plain().print(f"Written: {written}", soft_wrap=True)


@convert.command()
def keras(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Keras weights, .h5 or .hdf5.")],
    architecture: Annotated[
        str, typer.Option("--architecture", help="Network of the paper: deepseg or resnet50v2.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Checkpoint folder; default: FILE without its suffix."),
    ] = None,
) -> None:
    """Convert the paper's published Keras weights to a checkpoint, without TensorFlow."""
    from neuroxai.models.checkpoint import save_checkpoint
    from neuroxai.models.keras_weights import convert_keras

    network, card = convert_keras(file, architecture)
    folder = save_checkpoint(out or file.with_suffix(""), network, card)
    console = plain()
    console.print(f"Modalities {', '.join(card.modalities)}; classes {', '.join(card.classes)}")
    console.print(f"Written: {folder}", soft_wrap=True)
