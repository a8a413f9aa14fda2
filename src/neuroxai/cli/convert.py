"""``neuroxai convert``: conversion of weights to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli import options
from neuroxai.cli.console import plain, status
from neuroxai.cli.output import Output
from neuroxai.cli.panels import Command, Commands, example, network_option, result_option

convert = typer.Typer(
    cls=Commands, help="Convert weights from other formats to safetensors.", no_args_is_help=True
)


@convert.callback()
def group() -> None:
    """Convert weights from other formats to safetensors."""


@convert.command(
    cls=Command, epilog=example("neuroxai convert torch weights.pt --entry state_dict --trust")
)
def torch(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File written by torch.save.")],
    out: Annotated[
        Path | None,
        result_option(
            "-o",
            "--out",
            metavar="FILE",
            help="Output file; default: FILE with the suffix .safetensors.",
        ),
    ] = None,
    entry: Annotated[
        str | None,
        network_option(
            "--entry",
            metavar="KEY",
            help="Key of the tensors in the file, for example state_dict or state_dict.student.",
        ),
    ] = None,
    trust: Annotated[
        bool, network_option("--trust", help="Confirm that the file comes from a trusted source.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Convert pickled PyTorch weights to safetensors, in a process with limited resources."""
    from neuroxai.models.torch_weights import convert_torch, left_aside

    target = out or file.with_suffix(".safetensors")
    with status(f"reading {file} ..."):
        written = convert_torch(file, target, trust=trust, entry=entry)
    aside = left_aside(written)
    if as_json:
        result = {"file": str(written.resolve()), "left_aside": aside}
        Output(as_json=True).print_json("convert torch", result)
        return
    if aside and not quiet:
        plain().print(f"Left aside: {aside}", soft_wrap=True)
    plain().print(str(written) if quiet else f"Written: {written}", soft_wrap=True)


@convert.command(
    cls=Command, epilog=example("neuroxai convert keras weights.h5 --architecture deepseg")
)
def keras(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Keras weights, .h5 or .hdf5.")],
    architecture: Annotated[
        str,
        network_option(
            "--architecture", metavar="NAME", help="Network of the paper: deepseg or resnet50v2."
        ),
    ],
    out: Annotated[
        Path | None,
        result_option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Checkpoint folder; default: FILE without its suffix.",
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Convert the paper's published Keras weights to a checkpoint, without TensorFlow."""
    from neuroxai.models.checkpoint import save_checkpoint
    from neuroxai.models.keras_weights import convert_keras

    network, card = convert_keras(file, architecture)
    folder = save_checkpoint(out or file.with_suffix(""), network, card)
    if as_json:
        Output(as_json=True).print_json("convert keras", {"folder": str(folder.resolve())})
        return
    console = plain()
    if quiet:
        console.print(str(folder), soft_wrap=True)
        return
    console.print(f"Modalities {', '.join(card.modalities)}; classes {', '.join(card.classes)}")
    console.print(f"Written: {folder}", soft_wrap=True)
