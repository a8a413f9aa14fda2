"""The case and the targets of a command, for a loaded network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuroxai.cli.pairs import parse_files
from neuroxai.core.errors import CaseError, ModelError, TargetError, suggestion
from neuroxai.core.vocabulary import MODALITIES, standard_modality

if TYPE_CHECKING:
    from neuroxai.core.target.outputs import Outputs
    from neuroxai.core.target.target import Target
    from neuroxai.data.case import Case
    from neuroxai.models.model import Model


def read_one_case(
    case: Path | None,
    files: list[str] | None,
    layout: str | None,
    model: Model,
    *,
    strict: bool = False,
    resample_to: str | None = None,
) -> Case:
    """Read and check a case with the modalities that a model requires.

    Raises
    ------
    CaseError
        If the case cannot be used, or ``strict`` and its check finds a fault.
    ModelError
        If the case is a picture and the model expects a scan.
    """
    from neuroxai.data.brats import read_case
    from neuroxai.data.case_files import is_picture
    from neuroxai.quality import checked

    if case is not None and is_picture(case):
        return checked(_read_picture(case, model), strict=strict)
    try:
        study = read_case(
            case,
            modalities=required_modalities(model.card.modalities),
            files=parse_files(files) or None,
            layout=layout,
            channels=model.card.modalities,
            resample_to=resample_to,
        )
    except CaseError as error:
        raise CaseError(name_file_option(str(error))) from error
    return checked(study, strict=strict)


def name_file_option(message: str) -> str:
    """Add the option's name to a message of the case reader, which does not know the options."""
    return message.replace(
        "pass the file explicitly", "pass the file explicitly (--file MODALITY=PATH)"
    )


def required_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return a model's modalities without repeats, those of BraTS first and in their order.

    Examples
    --------
    >>> required_modalities(["FLAIR", "ADC", "T1", "FLAIR"])
    ('T1', 'FLAIR', 'ADC')
    """
    known = [name for name in MODALITIES if name in modalities]
    return tuple(dict.fromkeys((*known, *modalities)))


def background_of(case: Case, name: str | None) -> str | None:
    """Return the modality of a case that ``--background`` names, by any common name.

    Raises
    ------
    CaseError
        If the network does not read this modality.
    """
    if name is None:
        return None
    standard = {standard_modality(each): each for each in case.volumes}
    for known in (name, standard.get(standard_modality(name))):
        if known in case.volumes:
            return known
    raise CaseError(
        f"--background {name!r} is not a modality that the network reads; "
        f"{suggestion(name, case.volumes)}"
    )


def distinct_targets(targets: Iterable[Target], outputs: Outputs) -> tuple[list[Target], list[str]]:
    """Return the targets without duplicates, and a note for every duplicate.

    Targets are duplicates if they cover the same output channels, for example a region of one
    class and that class.

    Raises
    ------
    TargetError
        If two targets would be written to files of the same name.
    """
    from neuroxai.core.target.target import Predicted
    from neuroxai.files.names import entity_value

    found: dict[object, Target] = {}
    by_file: dict[str, Target] = {}
    notes: list[str] = []
    for target in targets:
        same = "predicted" if isinstance(target, Predicted) else _channels(target, outputs)
        if same in found:
            first = found[same].name
            if target.name != first:
                notes.append(f"target {target.name} is the same as {first}, computed once")
            continue
        found[same] = target
        other = by_file.setdefault(entity_value(target.name), target)
        if other is not target:
            raise TargetError(
                f"targets {other.name!r} and {target.name!r} have the same file name "
                f"{entity_value(target.name)}: request them in separate runs with --target, each "
                "with its own --out"
            )
    return list(found.values()), notes


def _channels(target: Target, outputs: Outputs) -> tuple[object, ...]:
    """Return the channels of a target, and for a contrast those of the other target."""
    import torch

    from neuroxai.core.target.contrast import Contrast
    from neuroxai.core.target.target import Target

    own = target.channels(outputs, torch.empty(1, len(outputs.names), 1))[0].tolist()
    channels: tuple[object, ...] = tuple(sorted(own))
    if isinstance(target, Contrast) and isinstance(target.against, Target):
        channels = (*channels, _channels(target.against, outputs))
    return channels


def _read_picture(path: Path, model: Model) -> Case:
    from neuroxai.data.pictures import expects_pictures, read_picture

    if not expects_pictures(model.card.modalities):
        raise ModelError(
            f"{path}: is a picture, but {model.card.name} expects a scan with "
            f"{', '.join(model.card.modalities)}; give a case folder, or a network trained on "
            "pictures"
        )
    return read_picture(path, model.card.preprocessing["size"])
