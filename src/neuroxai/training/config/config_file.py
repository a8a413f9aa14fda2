"""Reading of training configurations from YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroxai.core.errors import MissingExtraError, TrainingError, suggestion
from neuroxai.training.config.config import Config

CONFIGS = Path(__file__).parents[2] / "configs"
"""Folder of the configurations that come with the package."""


def read_config(
    source: str | Path, *, overrides: Sequence[str] = (), data: str | Path | None = None
) -> Config:
    """Read a configuration file, or one of the package's own by name.

    Parameters
    ----------
    source
        A YAML file, or a name such as ``phantom-segmentation``.
    overrides
        Settings ``key=value`` or ``part.key=value`` that replace the file's; values are YAML.
    data
        A cohort folder that replaces the file's data source.

    Raises
    ------
    TrainingError
        Naming the file and the key that is missing, unknown or invalid.
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
    table = _parse(text, str(path))
    if not isinstance(table, dict):
        raise TrainingError(f"{path}: not a mapping of settings; expected lines like 'batch: 4'")
    for override in overrides:
        _override(table, override)
    if data is not None:
        sources = table.get("data")
        sources = sources if isinstance(sources, dict) else {}
        kind = "pictures" if "pictures" in sources else "cohort"
        table["data"] = {kind: {**(sources.get(kind) or {}), "folder": str(data)}}
    return Config.from_dict(table, source=path)


def _parse(text: str, source: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("Training", "train", "pyyaml") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{source}: not valid YAML ({reason})") from error


def _override(table: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise TrainingError(f"--set {override}: expected key=value, for example batch=2")
    *parts, last = key.strip().split(".")
    for part in parts:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise TrainingError(
                f"--set {override}: {part} is a single value, so it has no keys; set {part} itself"
            )
        table = inner
    table[last] = _parse(value, f"--set {override}")
