"""The options that commands share, so that a word means the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuroxai.core.errors import CaseError, MethodError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neuroxai.core.target.outputs import Outputs
    from neuroxai.core.target.target import Target
    from neuroxai.data.case import Case
    from neuroxai.models.model import Model

CasePath = Annotated[
    Path | None,
    typer.Argument(
        metavar="CASE",
        help="A case folder in any BraTS layout or with files named by modality; or a picture.",
        show_default=False,
    ),
]
File = Annotated[
    list[str] | None,
    typer.Option(
        "--file", metavar="MODALITY=PATH", help="One file of the case, e.g. T1ce=t1c.nii.gz."
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option("--layout", help="Names and label numbers, e.g. brats2021; told from the files."),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        help="A shipped network's name, a checkpoint folder, the folder of a MONAI bundle or of a "
        "trained nnU-Net, or package.module:factory.",
    ),
]
WeightsFile = Annotated[
    Path | None, typer.Option("--weights", help="A factory's weights, a safetensors file.")
]
CardFile = Annotated[
    Path | None,
    typer.Option(
        "--card",
        help="What a factory's network expects and returns; default: card.json beside its weights.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Accept what can carry code: a bundle's expressions, an nnU-Net's pickled weights.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help="A method's word, repeatable, or all; see 'neuroxai methods'."),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="WT, TC, ET, a class name or number; repeatable."),
]
Layer = Annotated[
    str | None, typer.Option("--layer", help="Layer for Grad-CAM and guided Grad-CAM.")
]
Within = Annotated[
    str | None,
    typer.Option("--within", help="Restrict the target: prediction, truth, or lesion:N."),
]
Slice = Annotated[
    int | None,
    typer.Option("--slice", help="Axial slice for a 2D network, counted from the feet."),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="METHOD.NAME=VALUE", help="A method's parameter; repeatable."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE",
        help="What a pass through the network may take beside the process itself, e.g. 4GB; "
        "default: 80 % of what is left.",
    ),
]  # fmt: skip
Arithmetic = Annotated[
    str,
    typer.Option(
        "--precision", metavar="WORD",
        help="fp32, or on request tf32 (NVIDIA GPUs) or bf16; how far off it is gets measured.",
    ),
]  # fmt: skip
Limit = Annotated[int | None, typer.Option("--cases", min=1, help="Only the first so many cases.")]
Seed = Annotated[int, typer.Option("--seed", help="Of everything that draws random numbers.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="Folder for results; default: neuroxai-out/ with the name of the case or command.",
    ),
]


def read_one_case(
    case: Path | None, files: list[str] | None, layout: str | None, model: Model
) -> Case:
    """Read the case a command was given, with the modalities the model needs."""
    from neuroxai.data.brats import read_case
    from neuroxai.data.pictures import is_picture

    if case is not None and is_picture(case):
        return _read_picture(case, model)
    given = _given(case, files)
    needed = case_modalities(model, case, given)
    try:
        return read_case(case, modalities=needed, files=given or None, layout=layout)
    except CaseError as error:
        # The reader knows no options.
        ours = "name the file yourself (--file MODALITY=PATH)"
        raise CaseError(str(error).replace("name the file yourself", ours)) from error


def check_case(case: Path | None, files: list[str] | None, layout: str | None) -> None:
    """Refuse what can be told to be wrong of a case's options before a network is loaded."""
    from neuroxai.data.layouts import get_layout

    _given(case, files)
    if layout is not None:
        get_layout(layout)


def check_run(
    device: str, memory: str | None = None, precision: str = "fp32", within: str | None = None
) -> None:
    """Refuse what can be told to be wrong of a run's options before a network is loaded."""
    import torch

    from neuroxai.core.engine.memory import parse_size
    from neuroxai.core.engine.precision import check_precision
    from neuroxai.core.target.outputs import Outputs
    from neuroxai.core.target.target import Class
    from neuroxai.workflows.explain import choose_device
    from neuroxai.workflows.question import restricted

    check_precision(precision, choose_device(device))
    if memory is not None:
        parse_size(memory)
    if within not in (None, "truth"):  # whether a case has a truth is not known yet
        restricted(Class(0), str(within), Outputs(), torch.empty(0), None)


def distinct_targets(targets: Iterable[Target], outputs: Outputs) -> tuple[list[Target], list[str]]:
    """Return every target once, and what to say of those that ask the same in another word.

    Raises
    ------
    TargetError
        If the files of two would have the same names.
    """
    from neuroxai.core.target.target import Predicted
    from neuroxai.files.folder import slug

    found: dict[object, Target] = {}
    by_file: dict[str, Target] = {}
    notes: list[str] = []
    for target in targets:
        same = "predicted" if isinstance(target, Predicted) else _channels(target, outputs)
        if same in found:
            first = found[same].name
            if target.name != first:
                notes.append(f"target {target.name} is {first}, which is asked for already")
            continue
        found[same] = target
        other = by_file.setdefault(slug(target.name), target)
        if other is not target:
            raise TargetError(
                f"targets {other.name!r} and {target.name!r} would both be called "
                f"{slug(target.name)} in the names of files: ask for one after the other with "
                "--target, each with its own --out"
            )
    return list(found.values()), notes


def _channels(target: Target, outputs: Outputs) -> tuple[int, ...]:
    import torch

    return tuple(
        sorted(target.channels(outputs, torch.empty(1, len(outputs.names), 1))[0].tolist())
    )


def _given(case: Path | None, files: list[str] | None) -> dict[str, str]:
    """Return modality to file, as given one by one."""
    pairs = parse_pairs(files, "--file", "FLAIR=flair.nii.gz")
    if case is None and not pairs:
        raise CaseError("no case was given: name a case folder, or files with --file")
    return {_spelled(name): path for name, path in pairs.items()}


def _read_picture(path: Path, model: Model) -> Case:
    """Read a picture for a network that was made for pictures."""
    from neuroxai.core.errors import ModelError
    from neuroxai.data.pictures import expects_pictures, read_picture

    if not expects_pictures(model.card.modalities):
        raise ModelError(
            f"{path}: is a picture, {model.card.name} wants {', '.join(model.card.modalities)} of "
            "a scan; give a case folder, or a network that was trained on pictures"
        )
    return read_picture(path, model.card.preprocessing["size"])


def case_modalities(model: Model, case: Path | None, given: dict[str, str]) -> tuple[str, ...]:
    """Return what must be there: the model's modalities, and what it takes to choose a slice."""
    from neuroxai.data.case import MODALITIES

    needed = set(model.card.modalities)
    ordered = [name for name in MODALITIES if name in needed]
    return tuple(ordered + [name for name in model.card.modalities if name not in MODALITIES])


def parse_pairs(pairs: list[str] | None, option: str, example: str) -> dict[str, str]:
    """Return ``NAME=PATH`` texts as name to path.

    Examples
    --------
    >>> parse_pairs(["T1=a=b.nii"], "--file", "T1=t1.nii.gz")
    {'T1': 'a=b.nii'}
    """
    found: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise CaseError(f"{option} {pair!r}: expected NAME=PATH, e.g. {example}")
        if name in found:
            raise CaseError(f"{option} {pair!r}: {name} was given before, as {found[name]!r}")
        found[name] = path
    return found


def parse_parameters(pairs: list[str] | None) -> dict[str, dict[str, Any]]:
    """Return ``METHOD.NAME=VALUE`` pairs as method to parameters.

    Examples
    --------
    >>> parse_parameters(["smoothgrad.samples=8"])
    {'smoothgrad': {'samples': 8}}
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs or []:
        left, equals, text = pair.partition("=")
        method, dot, name = left.partition(".")
        if not equals or not dot or not name:
            raise MethodError(
                f"--set {pair!r}: expected METHOD.NAME=VALUE, e.g. integrated_gradients.steps=16"
            )
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if name in found.get(method, {}):
            before = found[method][name]
            raise MethodError(f"--set {pair!r}: {method}.{name} was given before, as {before!r}")
        found.setdefault(method, {})[name] = value
    return found


def _spelled(modality: str) -> str:
    from neuroxai.data.case import MODALITIES

    known = {name.lower(): name for name in (*MODALITIES, "truth")}
    return known.get(modality.lower(), modality)
