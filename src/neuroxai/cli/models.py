"""``neuroxai models``: shipped networks, and a check or the card of any network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuroxai.cli import options
from neuroxai.cli.checks import check_network
from neuroxai.cli.console import plain, status
from neuroxai.cli.model_card import card as model_card
from neuroxai.cli.output import Output
from neuroxai.cli.panels import Command, Commands, example

if TYPE_CHECKING:
    from neuroxai.core.probe.windows import Windows
    from neuroxai.data.preprocessing import Preprocessing

_LISTED = {
    "name", "architecture", "task", "modalities", "classes", "regions", "activation",
    "license", "use",
}  # fmt: skip
"""Keys of a card that the list has as JSON."""

models = typer.Typer(
    cls=Commands,
    help="List the shipped networks, check a network, or write its card.",
    no_args_is_help=True,
)
models.command(
    "card",
    cls=Command,
    epilog=example("neuroxai models card mine:make_network --weights mine.safetensors --init"),
)(model_card)


@models.command("list", cls=Command, epilog=example("neuroxai models list"))
def list_models(as_json: options.AsJson = False) -> None:
    """List the networks that are shipped with the package."""
    from rich.text import Text

    from neuroxai.models.card import read_card
    from neuroxai.models.formats import CARD, shipped_folder, shipped_models

    cards = {name: read_card(shipped_folder(name) / CARD) for name in shipped_models()}
    if as_json:
        described = [card.model_dump(mode="json", include=_LISTED) for card in cards.values()]
        Output(as_json=True).print_json("models list", {"models": described})
        return
    console = plain()
    for name, card in cards.items():
        console.print(
            Text.assemble(
                (name, "bold"),
                f"  {card.task}, {', '.join(card.modalities)} → {', '.join(card.classes)}; "
                f"{card.use}",
            ),
            soft_wrap=True,
        )


@models.command(cls=Command, epilog=example("neuroxai models check bundle/"))
def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As for the option --model of other commands.")
    ],
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    output_key: options.OutputKey = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the inputs and outputs of a network, and which methods apply to it."""
    check_network(model, weights, card)

    from rich.table import Table

    from neuroxai.data.preprocessing import Preprocessing
    from neuroxai.models.loading import load_model
    from neuroxai.workflows.check import check_model

    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    info, console = loaded.card, plain()
    with status(f"checking {info.name} ..."):
        found = check_model(loaded)
    if as_json:
        described = {
            "card": info.model_dump(mode="json", include=_LISTED | {"preprocessing"}),
            "format": loaded.kind,
            "weights_sha256": loaded.weights_sha256,
            "parameters": found.parameters,
            "layers": found.layers,
            "input_shape": list(found.shape),
            "output_shape": list(found.output_shape),
            "refused": dict(found.refused),
            "notes": list(loaded.notes),
        }
        Output(as_json=True).print_json("models check", described)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    recipe = Preprocessing.from_dict(info.preprocessing)
    rows = {
        "Network": f"{info.name}, {info.architecture}, {loaded.kind}",
        "Weights": f"{found.parameters:,} parameters, sha256 {loaded.weights_sha256[:16]}…",
        "Task": info.task,
        "Modalities": ", ".join(info.modalities),
        "Outputs": f"{', '.join(info.classes)} ({info.activation})",
        "Regions": "; ".join(f"{name} = {' + '.join(m)}" for name, m in info.regions.items()),
        "Intensities": _intensities(recipe),
        "Orientation": _axes(recipe.orientation, recipe.axis_order),
        "Steps": ", ".join(step.step for step in recipe.steps or ()),
        "Voxels": _voxel_size(recipe),
        "Sizes": _sizes(loaded.windows, recipe.divisor),
        "Checked with": f"{_times(found.shape)} → {_times(found.output_shape)}",
        "Layers": f"{found.layers} convolutions",
        "License": info.license,
        "Use": info.use,
    }
    for name, value in rows.items():
        table.add_row(name, value or "none")
    console.print(table)
    for note in loaded.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    for method, reason in found.refused.items():
        console.print(f"{method}: {'yes' if reason is None else f'no, {reason}'}", soft_wrap=True)


def _intensities(recipe: Preprocessing) -> str:
    if recipe.steps is not None:
        return "by steps"
    if isinstance(recipe.intensity, str):
        return recipe.intensity
    return ", ".join(kind if isinstance(kind, str) else "fixed" for kind in recipe.intensities)


def _axes(orientation: str | None, order: tuple[int, ...]) -> str:
    named = orientation or "as stored"
    return (
        named if order == (0, 1, 2) else f"{named}, axes {''.join('xyz'[axis] for axis in order)}"
    )


def _voxel_size(recipe: Preprocessing) -> str:
    exact, usual = recipe.voxel_mm, recipe.spacing_mm
    if exact is not None:
        others = "refused" if recipe.resampling == "refuse" else "resampled"
        edges = "×".join("any" if mm is None else f"{mm:g}" for mm in exact)
        return f"{edges} mm, other sizes are {others}"
    return f"{usual[0]:g} to {usual[1]:g} mm, other sizes produce a warning" if usual else "any"


def _sizes(windows: Windows | None, divisor: int) -> str:
    if windows is None:
        return "any" if divisor == 1 else f"multiples of {divisor}"
    return f"any, in sliding windows of {_times(windows.size)}, overlap {windows.overlap:g}"


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
