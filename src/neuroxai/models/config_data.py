"""A MONAI configuration read as data: references are followed, expressions are not run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from neuroxai.core.errors import MissingExtraError, ModelError
from neuroxai.models.text_file import read_text

_LARGEST = 4_000_000
_DEEPEST = 40


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises
    ------
    ModelError
        If the file is missing, too large, or holds something else.
    """
    try:
        found = json.loads(read_text(path, largest=_LARGEST))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from error
    return _object(found, path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of plain values from a file; no tags, no anchors.

    Anchors are refused because a few lines of them unfold to more than memory holds.

    Raises
    ------
    ModelError
        If the file is missing, too large, or holds something else.
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
            raise ModelError(f"{path}: uses YAML anchors, which are not read; write values out")
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{path}: not valid YAML of plain values ({first})") from error
    return _object(found, path)


def _object(found: Any, path: Path) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds a {type(found).__name__}, expected a table of entries")
    return found


class ConfigData:
    """The tables of a bundle's configuration.

    ``@name`` and ``@name::part`` (or ``#`` instead of ``::``) stand for another entry. A text that
    begins with ``$`` is Python; with ``trust`` MONAI evaluates it, without it is refused by name.
    ``%file::entry`` reads another file and is refused.

    Parameters
    ----------
    tables
        The configuration's entries.
    source
        Its file, for messages.
    trust
        Whether expressions may run.

    Examples
    --------
    >>> data = ConfigData({"size": [8, 8], "inferer": {"roi_size": "@size"}}, Path("a.json"))
    >>> data.get("inferer")
    {'roi_size': [8, 8]}
    """

    def __init__(self, tables: Mapping[str, Any], source: Path, *, trust: bool = False) -> None:
        self.source = source
        self._tables = tables
        self._trust = trust
        self._parser: Any = None

    def __contains__(self, name: str) -> bool:
        return name in self._tables

    def raw(self, name: str) -> Any:
        """Return an entry as it is written, or None where there is none."""
        return self._tables.get(name)

    def get(self, name: str, *, without: Collection[str] = ()) -> Any:
        """Return an entry with everything in it resolved, or None where there is none.

        Parameters
        ----------
        without
            Keys of it that are left out, so that what is not needed need not be resolved.

        Raises
        ------
        ModelError
            If it asks for an expression, a missing entry or another file, or never ends.
        """
        found = self._tables.get(name)
        if isinstance(found, Mapping) and without:
            found = {key: value for key, value in found.items() if key not in without}
        return self._resolve(found, name, 0)

    def _resolve(self, value: Any, place: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ModelError(f"{self.source}: {place} refers to itself, or is nested too deep")
        if isinstance(value, Mapping):
            return {k: self._resolve(v, f"{place}::{k}", depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            return [self._resolve(v, f"{place}::{n}", depth + 1) for n, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        if value.startswith("$"):
            return self._evaluated(value, place)
        if value.startswith("%"):
            raise ModelError(f"{self.source}: {place} is {value!r}, which reads another file")
        if value.startswith("@"):
            return self._resolve(self._entry(value[1:], place), place, depth + 1)
        return value

    def _entry(self, reference: str, place: str) -> Any:
        found: Any = self._tables
        for part in reference.replace("#", "::").split("::"):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise ModelError(
                    f"{self.source}: {place} refers to {reference!r}, which is not there"
                ) from error
        return found

    def _evaluated(self, expression: str, place: str) -> Any:
        if not self._trust:
            raise ModelError(
                f"{self.source}: {place} is the expression {expression!r}, which is code; "
                "if you trust this bundle, load it with --trust (trust=True)"
            )
        from monai.bundle import ConfigParser

        if self._parser is None:
            self._parser = ConfigParser(dict(self._tables))
        try:
            return self._parser.get_parsed_content(place)
        except Exception as error:
            raise ModelError(
                f"{self.source}: {place} is the expression {expression!r}, which fails ({error})"
            ) from error
