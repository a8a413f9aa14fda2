"""Folder of a training: its settings, its split, and whether it can be resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroxai.core.errors import ModelError, OutputError, TrainingError
from neuroxai.files.atomic import atomic_path
from neuroxai.models.card import read_card
from neuroxai.training.config.config import Config
from neuroxai.training.data.split import SplitEntry, read_split, write_split

CHECKPOINT = "checkpoint"
SPLIT = "split.csv"
_CONFIG = "config.json"


def check_folder(out: Path, config: Config, *, resume: bool) -> Path | None:
    """Check that a training can start in ``out``, or resume there.

    Returns
    -------
    Path or None
        The checkpoint folder if the training has already finished.

    Raises
    ------
    TrainingError
        If ``out`` contains a training and ``resume`` is false, or its settings differ.
    OutputError
        If ``out`` contains something else.
    """
    settings = out / _CONFIG
    if settings.is_file():
        if not resume:
            raise TrainingError(
                f"{out}: contains a training; resume it (--resume) or choose another folder"
            )
        try:
            digest = json.loads(settings.read_text(encoding="utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{settings}: not the settings of a training; choose another folder"
            ) from error
        if digest != config.digest():
            raise TrainingError(
                f"{out}: was started with other settings (see {settings.name} there); resume with "
                "the same settings or choose another folder"
            )
        folder = out / CHECKPOINT
        try:
            read_card(folder / "card.json")
        except ModelError:
            return None
        return folder
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"{out}: exists, but does not contain a training; choose another or an empty folder"
        )
    return None


def write_settings(out: Path, config: Config) -> None:
    """Write ``config.json``, which marks ``out`` as the folder of this training."""
    with atomic_path(out / _CONFIG) as temporary:
        table = {"digest": config.digest(), **portable_settings(config)}
        temporary.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def portable_settings(config: Config) -> dict[str, Any]:
    """Return the configuration without paths and settings of the machine."""
    table = config.to_dict()
    for key in ("cache", "workers", "device", "tensorboard"):
        del table[key]
    cohort = table["data"]["cohort"] or table["data"]["pictures"] or {}
    for holder, key in (
        (table, "initial"),
        (table, "pretrained"),
        (cohort, "folder"),
        (cohort, "split"),
    ):
        if holder.get(key) is not None:
            holder[key] = Path(holder[key]).name
    return table


def record_split(out: Path, split: Sequence[SplitEntry], *, resume: bool) -> None:
    """Write ``split.csv``; when resuming, check that no case changed its part.

    Raises
    ------
    TrainingError
        If a case belongs to another part than at the start of the training.
    """
    path = out / SPLIT
    if resume and path.is_file():
        _check_unchanged(read_split(path), split, path)
    write_split(split, path)


def _check_unchanged(before: Sequence[SplitEntry], now: Sequence[SplitEntry], path: Path) -> None:
    """Raise if a case changed its part: held-out cases could have been trained on."""
    old, new = ({entry.case: entry.part for entry in each} for each in (before, now))
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if changed:
        first = changed[0]
        raise TrainingError(
            f"{path}: the split of {len(changed)} cases has changed since the training started, "
            f"for example {first} from {old.get(first, 'absent')} to {new.get(first, 'absent')}; "
            "restore the cohort, or start a new training"
        )
