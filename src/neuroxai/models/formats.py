"""Formats of networks, recognized by their files; importable without torch."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from neuroxai.core.errors import ModelError, suggestion

DEFAULT_MODEL = "deepseg-phantom"

WEIGHTS = "model.safetensors"
CARD = "card.json"
EXPORTED = ".pt2"
COMMAND = "command:"
"""Start of the name of a program."""
METADATA = Path("configs", "metadata.json")
PLANS = Path("plans.json")
DATASET = Path("dataset.json")

CARRY_CODE = {
    ".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".h5", ".hdf5", ".keras", ".bin", ".joblib", ".ts",
    ".torchscript", ".ptl",
}  # fmt: skip
"""Suffixes of files that can execute code when they are read."""
KERAS = {".h5", ".hdf5", ".keras"}
"""Suffixes of Keras files."""
TORCHSCRIPT = {".ts", ".torchscript", ".ptl"}
"""Suffixes of TorchScript archives; they may also end in ``.pt``."""

_SHIPPED = Path(__file__).parent / "shipped"
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|7z|(tar\.)?(gz|bz2|xz|zst))$")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


_UP, _DOWN = 2, 2
"""Levels of folders: nnUNet_results/Dataset/trainer__plans__configuration/fold_0/checkpoint."""
_MOST, _SHOWN = 200, 5
"""Folders to search per level, and folders that an error message names."""


class Format(Enum):
    """How a network is stored."""

    CHECKPOINT = "checkpoint"
    BUNDLE = "MONAI bundle"
    NNUNET = "nnU-Net"
    EXPORTED = "exported program"
    FACTORY = "factory"
    COMMAND = "command"


_NAMES = {Format.BUNDLE: "a MONAI bundle", Format.NNUNET: "a trained nnU-Net"}
"""Formats of networks with files in several folders."""


@dataclass(frozen=True)
class Location:
    """Format and place of a network.

    Attributes
    ----------
    format
        How it is stored.
    path
        Its folder or file; the weights of a factory.
    """

    format: Format
    path: Path


def locate_model(
    name_or_path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    card: str | os.PathLike[str] | None = None,
) -> Location:
    """Find a network and its format; no file's content is read.

    Parameters
    ----------
    name_or_path, weights, card
        As for :func:`~neuroxai.models.loading.load_model`.

    Raises
    ------
    ModelError
        If no network has that name, its format is not supported, or ``weights`` or
        ``card`` are given for a network that has its own.

    Examples
    --------
    >>> locate_model("deepseg-phantom").format
    <Format.CHECKPOINT: 'checkpoint'>
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if text.startswith(COMMAND):
        if weights is not None:
            raise ModelError(f"{text}: a program has its own weights; omit --weights")
        return Location(Format.COMMAND, Path(card or CARD))
    if _FACTORY.fullmatch(text):
        if weights is None:
            raise ModelError(f"{text}: its weights are missing; add --weights model.safetensors")
        return Location(Format.FACTORY, Path(weights))
    if weights is None and path.suffix == EXPORTED:
        return Location(Format.EXPORTED, path)
    if weights is not None or card is not None:
        raise ModelError(
            f"{text}: has its own weights and card; --weights and --card are only for "
            "package.module:factory, and --card for command:PROGRAM"
        )
    if text in shipped_models():
        return Location(Format.CHECKPOINT, shipped_folder(text))
    return _locate_path(text, path)


def _locate_path(text: str, path: Path) -> Location:
    if path.is_file() and path.name in (WEIGHTS, CARD, PLANS.name, DATASET.name):
        path = path.parent
    found = _format_of(path)
    if found is not None:
        return Location(found, path)
    _refuse_neighbor(path)
    refuse_code(path)
    if path.is_file() and _ARCHIVE.search(path.name.lower()):
        raise ModelError(f"{path}: archives are not supported; unpack it and name the folder")
    if path.is_file():
        raise ModelError(f"{path}: is a file, expected a folder with {WEIGHTS} and {CARD}")
    if path.is_dir():
        return Location(Format.CHECKPOINT, path)
    shipped = shipped_models()
    hint = suggestion(text, shipped) if shipped else "this installation ships no network"
    raise ModelError(
        f"{text}: neither a shipped network, nor a checkpoint folder ({WEIGHTS} and {CARD}), nor a "
        f"MONAI bundle ({METADATA}), nor an nnU-Net folder ({PLANS}), nor package.module:factory; "
        f"{hint}"
    )


def _format_of(folder: Path) -> Format | None:
    """Return the format of the network in a folder, from the names of its files."""
    if (folder / METADATA).is_file():
        return Format.BUNDLE
    if (folder / PLANS).is_file() and (folder / DATASET).is_file():
        return Format.NNUNET
    if (folder / CARD).is_file():
        return Format.CHECKPOINT
    return None


def _refuse_neighbor(path: Path) -> None:
    """Raise if the network is in a folder above or below a path, naming that folder.

    For example for one fold or checkpoint of an nnU-Net, the folder that holds the results of
    several, or a file inside of a bundle.
    """
    if not path.exists():
        return
    fold = path if path.is_dir() else path.absolute().parent
    for folder in list(path.absolute().parents)[:_UP]:
        found = _format_of(folder)
        if found in _NAMES:
            part = (
                "is one fold of a trained nnU-Net, whose folds are averaged" if path == fold
                and fold.name.startswith("fold_")
                else f"is a {'folder' if path.is_dir() else 'file'} inside of {_NAMES[found]}"
            )  # fmt: skip
            raise ModelError(f"{path}: {part}; name its folder: {folder}")
    if fold.name.startswith("fold_") and any(fold.glob("checkpoint_*")):
        raise ModelError(
            f"{path}: belongs to a fold of an nnU-Net without {PLANS} and {DATASET} in its parent; "
            f"copy them to {fold.absolute().parent} and name that folder"
        )
    inside = sorted({each for each in _below(path) if _format_of(each) is not None})
    if inside:
        shown = ", ".join(map(str, inside[:_SHOWN])) + (", ..." if len(inside) > _SHOWN else "")
        raise ModelError(
            f"{path}: holds {len(inside)} network{'s' * (len(inside) > 1)} in folders below; name "
            f"{'one of them' if len(inside) > 1 else 'its folder'}: {shown}"
        )


def _below(path: Path) -> list[Path]:
    """Return the folders below a path, not deeper than nnU-Net's results are nested."""
    found: list[Path] = []
    level = [path] if path.is_dir() else []
    for _ in range(_DOWN):
        level = [
            each for folder in level for each in _folders(folder)
        ][:_MOST]  # fmt: skip
        found += level
    return found


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []


def shipped_models() -> tuple[str, ...]:
    """Return the names of the networks that come with the package."""
    return tuple(sorted(card.parent.name for card in _SHIPPED.glob(f"*/{CARD}")))


def shipped_folder(name: str) -> Path:
    """Return the folder of a network that comes with the package."""
    return _SHIPPED / name


def refuse_code(path: Path) -> None:
    """Raise if the type of a file can execute code when it is read.

    Raises
    ------
    ModelError
        With the command that converts it.

    Examples
    --------
    >>> refuse_code(Path("model.safetensors"))
    """
    suffix = path.suffix.lower()
    if suffix not in CARRY_CODE:
        return
    refuse_torchscript(path)
    way = f"neuroxai convert torch {path} --trust"
    if suffix in KERAS:
        way = f"neuroxai convert keras {path} --architecture deepseg"
    raise ModelError(
        f"{path}: {path.suffix} files can contain code and are not read; if you trust the "
        f"file, convert it:  {way}"
    )


def refuse_torchscript(path: Path) -> None:
    """Raise if a file is a TorchScript archive.

    Raises
    ------
    ModelError
        With the way to export the network.
    """
    if is_torchscript(path):
        raise ModelError(
            f"{path}: a TorchScript archive, which contains code and is not read; export the "
            "network from Python instead:  torch.export.save(torch.export.export(network.eval(), "
            f"(example,)), '{path.stem}{EXPORTED}')  and describe it in card.json"
        )


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, of which only the list of entries is read.

    Examples
    --------
    >>> is_torchscript(Path("model.ts"))
    True
    >>> is_torchscript(Path("missing.pt"))
    False
    """
    if path.suffix.lower() in TORCHSCRIPT:
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith("/constants.pkl") for name in names)
