"""A training configuration from its YAML file, held to its types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from neuroxai.core.errors import MissingExtraError, TrainingError, suggestion
from neuroxai.training.config.config import Config
from neuroxai.training.config.config_check import check

CONFIGS = Path(__file__).parents[2] / "configs"
"""The configurations that come with the package, found by their names."""


def read_config(
    source: str | Path, *, overrides: Sequence[str] = (), data: str | Path | None = None
) -> Config:
    """Read a configuration by path, or one of the package's own by name.

    Parameters
    ----------
    source
        A YAML file, or a name such as ``phantom-segmentation``.
    overrides
        Texts ``key=value`` or ``part.key=value``; the value is YAML.
    data
        A cohort folder that takes the place of the file's data source.

    Raises
    ------
    TrainingError
        Naming the file and the key that is missing, unknown or of the wrong kind.
    """
    path = Path(source)
    shipped = {entry.stem: entry for entry in sorted(CONFIGS.glob("*.yaml"))}
    if str(source) in shipped:
        path = shipped[str(source)]
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path}: no such configuration; {suggestion(path.stem, shipped)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    table = _yaml(text, str(path))
    if not isinstance(table, dict):
        raise TrainingError(f"{path}: holds no table of settings, expected lines like 'batch: 4'")
    for override in overrides:
        _override(table, override)
    if data is not None:
        sources = table.get("data") or {}
        kind = "pictures" if "pictures" in sources else "cohort"
        table["data"] = {kind: {**(sources.get(kind) or {}), "folder": str(data)}}
    return config_from_dict(table, source=str(path))


def config_from_dict(table: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """Build a :class:`Config` from plain tables; errors name ``source`` and the key."""
    table = dict(table)
    steps = table.get("preprocessing")
    if isinstance(steps, Mapping) and "modalities" in table:
        # Said once in the file; the card repeats it for whoever uses the network.
        table["preprocessing"] = {"modalities": table["modalities"], **steps}
    config = _build(Config, table, source, "")
    if not isinstance(config, Config):
        raise TypeError(type(config))
    check(config, source)
    return config


def _yaml(text: str, source: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("Training", "train", "pyyaml") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingError(f"{source}: not valid YAML ({error})") from error


def _override(table: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise TrainingError(f"--set {override}: expected key=value, for example batch=2")
    *parts, last = key.strip().split(".")
    for part in parts:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise TrainingError(f"--set {override}: {part} is no table, it has no keys")
        table = inner
    table[last] = _yaml(value, f"--set {override}")


def _build(kind: type, table: object, source: str, prefix: str) -> Any:
    """Make the dataclass ``kind`` from ``table``."""
    if not isinstance(table, Mapping):
        raise TrainingError(f"{source}: {prefix[:-1]} is {table!r}, expected a table")
    hints = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            raise TrainingError(
                f"{source}: unknown key '{prefix}{key}'; {suggestion(str(key), fields)}"
            )
    values: dict[str, Any] = {}
    for key, entry in fields.items():
        if key in table:
            values[key] = _convert(table[key], hints[key], source, prefix + key)
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise TrainingError(f"{source}: the key '{prefix}{key}' is missing")
    return kind(**values)


def _convert(value: Any, kind: Any, source: str, key: str) -> Any:
    """Hold one value to its type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast("type", kind), value, source, f"{key}.")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _convert(value, inner[0], source, key)
    if origin is Literal:
        value = str(value)
        if value in inner:
            return value
        raise TrainingError(f"{source}: {key} is {value!r}; {suggestion(value, inner)}")
    if origin is tuple:
        endless = len(inner) == 2 and inner[1] is Ellipsis
        if not isinstance(value, list | tuple) or (not endless and len(value) != len(inner)):
            count = "a list" if endless else f"a list of {len(inner)}"
            raise TrainingError(f"{source}: {key} is {value!r}, expected {count}")
        kinds = [inner[0]] * len(value) if endless else inner
        return tuple(
            _convert(item, each, source, f"{key}[{index}]")
            for index, (item, each) in enumerate(zip(value, kinds, strict=True))
        )
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3 as text.
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    plain = Mapping if origin is not None else kind
    if isinstance(value, plain) and (kind is bool or not isinstance(value, bool)):
        return value
    raise TrainingError(
        f"{source}: {key} is {value!r}, expected {getattr(plain, '__name__', plain)}"
    )
