"""Checks of options that need neither torch nor the network, so that errors appear at once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroxai.cli.case import name_file_option, required_modalities
from neuroxai.cli.pairs import parse_files, parse_parameters
from neuroxai.core.errors import CaseError, MethodError
from neuroxai.data.case_files import check_case as check_case_path
from neuroxai.data.case_files import is_picture, locate_case
from neuroxai.data.layouts import get_layout
from neuroxai.models.formats import CARD, Format, Location, locate_model

if TYPE_CHECKING:
    from neuroxai.core.target.scale import OutputScale


def check_case(case: Path | None, files: list[str] | None, layout: str | None) -> None:
    """Check the options that name a case.

    Raises
    ------
    CaseError
        If no case is given, its folder does not exist, a ``--file`` is malformed, or the layout is
        unknown.
    """
    if not parse_files(files) and case is None:
        raise CaseError("no case given: name a case folder, or its files with --file")
    check_layout(layout)
    if case is not None and not is_picture(case):
        check_case_path(case)


def check_layout(layout: str | None) -> None:
    """Check the option that names a layout.

    Raises
    ------
    CaseError
        If the layout is unknown.
    """
    if layout is not None:
        get_layout(layout)


def check_network(model: str, weights: Path | None, card: Path | None) -> Location:
    """Check the options that name a network; return its format and place.

    Raises
    ------
    ModelError
        If there is no such network, or its format is not supported.
    """
    return locate_model(model, weights=weights, card=card)


def check_inputs(
    case: Path | None,
    files: list[str] | None,
    layout: str | None,
    network: Location,
    within: str | None = None,
    *,
    resample_to: str | None = None,
) -> None:
    """Check that the case has the files a network requires, and their headers.

    If ``within`` is the file of a mask, it must be on the scan's grid.

    The network's requirements are known early for checkpoints only; for other formats, and for
    pictures, only the case's folder is checked.

    Raises
    ------
    CaseError
        If the folder is not a case, a modality is missing, or a header is invalid.
    ModelError
        If the network's card is invalid.
    """
    if network.format is not Format.CHECKPOINT or (case is not None and is_picture(case)):
        return
    from neuroxai.models.card import read_card

    channels = read_card(network.path / CARD).modalities
    try:
        found = locate_case(
            case,
            modalities=required_modalities(channels),
            files=parse_files(files) or None,
            layout=layout,
            channels=channels,
        )
    except CaseError as error:
        raise CaseError(name_file_option(str(error))) from error

    from neuroxai.core.target.within import FILE, parse_within
    from neuroxai.data.case_headers import check_headers

    masks = [Path(within)] if within is not None and parse_within(within)[0] == FILE else []
    check_headers(found, masks, resample_to)


def check_run(device: str, memory: str | None = None, precision: str = "fp32") -> None:
    """Check the options of a run; see :func:`check_hardware` for whether the device exists.

    Raises
    ------
    NeuroXAIError
        If the device, memory size or precision is not one that exists.
    """
    from neuroxai.core.engine.memory import parse_size
    from neuroxai.core.engine.settings import check_device_name, check_precision_name

    check_device_name(device)
    check_precision_name(precision)
    if memory is not None:
        parse_size(memory)


def check_split(split: Path | None, part: str) -> dict[str, str] | None:
    """Return case name to patient for one part of a split; None for all cases.

    Raises
    ------
    TrainingError
        If the file is not a split, or has no such part.
    """
    if split is None:
        return None

    from neuroxai.core.errors import TrainingError, suggestion
    from neuroxai.training.data.split import PARTS, read_split

    if part not in PARTS:
        raise TrainingError(f"--part {part!r}: {suggestion(part, PARTS)}")
    members = {member.case: member.patient for member in read_split(split) if member.part == part}
    if not members:
        raise TrainingError(f"{split}: no case belongs to the part {part}")
    return members


def check_question(within: str | None, scale: str) -> OutputScale:
    """Check the options that say where and on which scale a target is averaged.

    Returns
    -------
    OutputScale
        The scale.

    Raises
    ------
    TargetError
        If the place or the scale does not exist.
    CaseError
        If a mask is missing or its header is invalid.
    """
    from neuroxai.core.target.scale import check_scale
    from neuroxai.core.target.within import FILE, parse_within

    if within is not None and parse_within(within)[0] == FILE:
        from neuroxai.data.case_headers import check_mask_file

        check_mask_file(Path(within))
    return check_scale(scale)


def check_hardware(device: str, precision: str = "fp32") -> None:
    """Check that the device exists and supports the precision; imports torch.

    Raises
    ------
    ModelError
        If it does not.
    """
    from neuroxai.core.engine.precision import check_precision
    from neuroxai.workflows.device import choose_device

    check_precision(precision, choose_device(device))


def requested_methods(
    methods: list[str] | None, layer: str | None, parameters: list[str] | None
) -> dict[str, dict[str, Any]]:
    """Return the requested methods and the parameters to set for each.

    Parameters
    ----------
    methods
        Names, or ``all``, which is the default; it leaves out the methods that remove parts of the
        image, which take hundreds of passes.
    layer
        Layer for every requested method that uses one.
    parameters
        ``METHOD.NAME=VALUE`` pairs.

    Raises
    ------
    MethodError
        If a method or a parameter is unknown, a parameter is set for a method that is not
        requested, no requested method uses the layer, or options contradict each other.

    Examples
    --------
    >>> requested_methods(["grad_cam", "smoothgrad"], "layer4", ["smoothgrad.samples=8"])
    {'grad_cam': {'layer': 'layer4'}, 'smoothgrad': {'samples': 8}}
    """
    from neuroxai.methods.table import (
        all_entries,
        check_layer_used,
        check_method_name,
        check_parameter_name,
    )

    entries = all_entries()
    usual = [name for name, entry in entries.items() if not entry.on_request]
    named = [usual if name == "all" else [name] for name in methods or ["all"]]
    wanted = list(dict.fromkeys(itertools.chain.from_iterable(named)))
    given = parse_parameters(parameters)
    for name in (*wanted, *given):
        check_method_name(name, entries)
    layered = [name for name, entry in entries.items() if "layer" in entry.parameter_names]
    for name, own in given.items():
        for parameter in own:
            check_parameter_name(name, parameter, entries[name].parameter_names)
        if name not in wanted:
            raise MethodError(f"--set {name}: the method is not requested; add --method {name}")
        if layer and own.get("layer", layer) != layer:
            raise MethodError(
                f"--layer {layer!r} and --set {name}.layer={own['layer']!r} contradict each other; "
                "give one of them"
            )
    if layer:
        check_layer_used(layer, wanted, layered)
    return {
        name: {**({"layer": layer} if layer and name in layered else {}), **given.get(name, {})}
        for name in wanted
    }


def with_baseline(
    requests: dict[str, dict[str, Any]], baseline: str | None
) -> dict[str, dict[str, Any]]:
    """Return methods and their parameters, with a baseline for every path method.

    Parameters
    ----------
    requests
        See :func:`requested_methods`.
    baseline
        A name, or a number as text; None to leave the methods as they are.

    Raises
    ------
    MethodError
        If the name is unknown, no requested method is a path method, or ``--set`` gives another
        baseline.

    Examples
    --------
    >>> with_baseline({"grad_cam": {}, "integrated_gradients": {}}, "0.5")
    {'grad_cam': {}, 'integrated_gradients': {'baseline': 0.5}}
    """
    if baseline is None:
        return requests
    from neuroxai.methods.paths.baseline_names import check_name, is_number
    from neuroxai.methods.table import all_entries

    value = float(baseline) if is_number(baseline) else baseline
    if isinstance(value, str):
        check_name("--baseline", value)
    entries = all_entries()
    paths = [name for name in requests if "baseline" in entries[name].parameter_names]
    if not paths:
        known = [name for name, entry in entries.items() if "baseline" in entry.parameter_names]
        raise MethodError(
            f"--baseline {baseline}: no requested method has a baseline; add --method "
            f"{' or '.join(known)}"
        )
    for name in paths:
        own = requests[name].get("baseline", value)
        if own != value:
            raise MethodError(
                f"--baseline {baseline} and --set {name}.baseline={own} contradict each other; "
                "give one of them"
            )
    return {
        name: {**own, **({"baseline": value} if name in paths else {})}
        for name, own in requests.items()
    }
