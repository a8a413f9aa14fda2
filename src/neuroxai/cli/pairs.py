"""Options of the form ``NAME=VALUE``."""

from __future__ import annotations

import json
from typing import Any

from neuroxai.core.errors import CaseError, MethodError
from neuroxai.core.vocabulary import MODALITIES


def parse_paths(pairs: list[str] | None, option: str, example: str) -> dict[str, str]:
    """Parse ``NAME=PATH`` pairs into name to path.

    Raises
    ------
    CaseError
        If a pair has another form, or a name is repeated.

    Examples
    --------
    >>> parse_paths(["T1=a=b.nii"], "--file", "T1=t1.nii.gz")
    {'T1': 'a=b.nii'}
    """
    found: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise CaseError(f"{option} {pair!r}: expected NAME=PATH, for example {example}")
        if name in found:
            raise CaseError(f"{option} {pair!r}: {name} was given before, as {found[name]!r}")
        found[name] = path
    return found


def parse_files(files: list[str] | None) -> dict[str, str]:
    """Parse ``--file MODALITY=PATH`` pairs; modalities are matched regardless of case.

    Raises
    ------
    CaseError
        If a pair has another form, or a modality is repeated.

    Examples
    --------
    >>> parse_files(["t1CE=a.nii.gz"])
    {'T1ce': 'a.nii.gz'}
    """
    known = {name.lower(): name for name in (*MODALITIES, "truth")}
    pairs = parse_paths(files, "--file", "FLAIR=flair.nii.gz")
    return {known.get(name.lower(), name): path for name, path in pairs.items()}


def parse_parameters(pairs: list[str] | None) -> dict[str, dict[str, Any]]:
    """Parse ``METHOD.NAME=VALUE`` pairs into method to parameters; values are JSON or text.

    Raises
    ------
    MethodError
        If a pair has another form, or a parameter is repeated.

    Examples
    --------
    >>> parse_parameters(["smoothgrad.samples=8", "integrated_gradients.rule=left"])
    {'smoothgrad': {'samples': 8}, 'integrated_gradients': {'rule': 'left'}}
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs or []:
        left, equals, text = pair.partition("=")
        method, dot, name = left.partition(".")
        if not equals or not dot or not name:
            raise MethodError(
                f"--set {pair!r}: expected METHOD.NAME=VALUE, for example "
                "integrated_gradients.steps=16"
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
