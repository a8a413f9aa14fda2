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


class Format(Enum):
    """How a network is stored."""

    CHECKPOINT = "checkpoint"
    BUNDLE = "MONAI bundle"
    NNUNET = "nnU-Net"
    EXPORTED = "exported program"
    FACTORY = "factory"


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
    if _FACTORY.fullmatch(text):
        if weights is None:
            raise ModelError(f"{text}: its weights are missing; add --weights model.safetensors")
        return Location(Format.FACTORY, Path(weights))
    if weights is None and path.suffix == EXPORTED:
        return Location(Format.EXPORTED, path)
    if weights is not None or card is not None:
        raise ModelError(
            f"{text}: has its own weights and card; --weights and --card are only for "
            "package.module:factory"
        )
    if text in shipped_models():
        return Location(Format.CHECKPOINT, shipped_folder(text))
    return _locate_path(text, path)


def _locate_path(text: str, path: Path) -> Location:
    refuse_code(path)
    if path.is_file() and path.name in (WEIGHTS, CARD):
        path = path.parent
    if path.is_file() and _ARCHIVE.search(path.name.lower()):
        raise ModelError(f"{path}: archives are not supported; unpack it and name the folder")
    if path.is_file():
        raise ModelError(f"{path}: is a file, expected a folder with {WEIGHTS} and {CARD}")
    if (path / METADATA).is_file():
        return Location(Format.BUNDLE, path)
    if (path / PLANS).is_file() and (path / DATASET).is_file():
        return Location(Format.NNUNET, path)
    if path.is_dir():
        return Location(Format.CHECKPOINT, path)
    shipped = shipped_models()
    hint = suggestion(text, shipped) if shipped else "this installation ships no network"
    raise ModelError(
        f"{text}: neither a shipped network, nor a checkpoint folder ({WEIGHTS} and {CARD}), nor a "
        f"MONAI bundle ({METADATA}), nor an nnU-Net folder ({PLANS}), nor package.module:factory; "
        f"{hint}"
    )


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
