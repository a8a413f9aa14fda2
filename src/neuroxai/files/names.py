"""Names of result files and folders."""

from __future__ import annotations

import re
from pathlib import Path


def slug(text: str) -> str:
    """Return a text as one word for a file name; letters of any script are kept.

    Examples
    --------
    >>> slug("WT/../x y")
    'WT-x-y'
    """
    return re.sub(r"[^\w+]+", "-", text).strip("-") or "unnamed"


def sidecar(path: Path) -> Path:
    """Return the path of the BIDS sidecar, a JSON file next to a NIfTI file.

    Examples
    --------
    >>> sidecar(Path("a.nii.gz")).name
    'a.json'
    """
    return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.nii')}.json")


def results_folder(out: Path | None, name: str) -> Path:
    """Return the folder for results, by default ``neuroxai-out/NAME``.

    Examples
    --------
    >>> results_folder(None, "BraTS2021_00001").as_posix()
    'neuroxai-out/BraTS2021_00001'
    """
    return out if out is not None else Path("neuroxai-out") / slug(name)
