"""MONAI configurations as data: references are resolved, expressions are not evaluated."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from neuroxai.core.errors import MissingExtraError, ModelError
from neuroxai.models.text_file import read_text

_LARGEST = 4_000_000
"""Bytes of a configuration; those of published bundles have some 10 kB."""
_DEEPEST = 40
"""Levels of nesting, far more than any bundle has."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that contains a JSON object.

    Raises
    ------
    ModelError
        If the file is missing, too large, or contains something else.
    """
    try:
        found = json.loads(read_text(path, largest=_LARGEST))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from error
    return _object(found, path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file that contains a YAML mapping of plain values, without tags and anchors.

    Anchors are rejected, because a few lines of them can expand to more than memory holds.

    Raises
    ------
    ModelError
        If the file is missing, too large, or contains something else.
    MissingExtraError
        If PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("Reading YAML", "monai", "pyyaml") from error
    text = read_text(path, largest=_LARGEST)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ModelError(
                f"{path}: uses YAML anchors, which are not supported; write the values out"
            )
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{path}: not valid YAML of plain values ({first})") from error
    return _object(found, path)


def _object(found: Any, path: Path) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ModelError(
            f"{path}: contains a {type(found).__name__}, expected a mapping of keys to values"
        )
    return found


class ConfigData:
    """Entries of a bundle's configuration.

    ``@name`` and ``@name::part`` (or ``#`` instead of ``::``) refer to another entry. Text that
    begins with ``$`` is a Python expression: MONAI evaluates it with ``trust``, otherwise it is
    rejected, unless it is a list of plain values. ``%file::entry`` refers to another file and is
    rejected.

    Parameters
    ----------
    entries
        Content of the configuration file.
    source
        The file, for error messages.
    trust
        Whether to evaluate expressions.

    Examples
    --------
    >>> data = ConfigData({"size": [8, 8], "inferer": {"roi_size": "@size"}}, Path("a.json"))
    >>> data.get("inferer")
    {'roi_size': [8, 8]}
    """

    def __init__(self, entries: Mapping[str, Any], source: Path, *, trust: bool = False) -> None:
        self.source = source
        self._entries = entries
        self._trust = trust
        self._parser: Any = None
        self._keep: re.Pattern[str] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def raw(self, name: str) -> Any:
        """Return an entry without resolving it, or None if it does not exist."""
        return self._entries.get(name)

    def get(
        self, name: str, *, without: Collection[str] = (), keep: re.Pattern[str] | None = None
    ) -> Any:
        """Return an entry with all references resolved, or None if it does not exist.

        Parameters
        ----------
        name
            Key of the entry.
        without
            Keys of the entry to leave out; they are not resolved.
        keep
            Expressions that are returned as text.

        Raises
        ------
        ModelError
            If it contains an untrusted expression, refers to a missing entry or to another file,
            or is nested without end.
        """
        self._keep = keep
        found = self._entries.get(name)
        if isinstance(found, Mapping) and without:
            found = {key: value for key, value in found.items() if key not in without}
        return self._resolve(found, name, 0)

    def _resolve(self, value: Any, place: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ModelError(f"{self.source}: {place} refers to itself or is nested too deeply")
        if isinstance(value, Mapping):
            return {k: self._resolve(v, f"{place}::{k}", depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            return [self._resolve(v, f"{place}::{n}", depth + 1) for n, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        if value.startswith("$"):
            return self._evaluate(value, place)
        if value.startswith("%"):
            raise ModelError(
                f"{self.source}: {place} is {value!r}, which refers to another file; copy the "
                "value into this one"
            )
        if value.startswith("@"):
            return self._resolve(self._entry(value[1:], place), place, depth + 1)
        return value

    def _entry(self, reference: str, place: str) -> Any:
        found: Any = self._entries
        for part in reference.replace("#", "::").split("::"):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise ModelError(
                    f"{self.source}: {place} refers to {reference!r}, which does not exist"
                ) from error
        return found

    def _evaluate(self, expression: str, place: str) -> Any:
        if self._keep is not None and self._keep.fullmatch(expression):
            return expression
        if expression[1:].lstrip().startswith(("(", "[")):
            # A list of plain values is data, although it is written as an expression.
            try:
                return list(ast.literal_eval(expression[1:].strip()))
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                pass
        if not self._trust:
            raise ModelError(
                f"{self.source}: {place} is the expression {expression!r}, which is code; "
                "if you trust this bundle, load it with --trust (trust=True)"
            )
        from monai.bundle import ConfigParser

        if self._parser is None:
            self._parser = ConfigParser(dict(self._entries))
        try:
            return self._parser.get_parsed_content(place)
        except Exception as error:
            raise ModelError(
                f"{self.source}: {place} is the expression {expression!r}, which fails: {error}"
            ) from error
