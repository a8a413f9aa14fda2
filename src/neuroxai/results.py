"""A folder of results: described for BIDS tools, its files kept together or taken back together."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from neuroxai.core.atomic import replaced_whole
from neuroxai.core.explanation import NOT_FOR_CLINICAL_USE
from neuroxai.version import __version__

_DESCRIPTION, _IGNORE = "dataset_description.json", ".bidsignore"

_NOT_BIDS = (
    "*_statmap.*", "*_montage-*.png", "*_flow.png", "*_page-*.png",
    "best_*.csv", "cases.csv", "dissection.*", "evaluation*", "flow.json", "prediction.json",
    "slices.csv", "summary.json", "tables.csv",
)  # fmt: skip
"""What the standard has no name for."""


class Results:
    """The files of one run. As a context it removes them again if the run fails.

    Parameters
    ----------
    folder
        Where they are written; it need not exist yet.

    Attributes
    ----------
    written
        The files so far, in order.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "out"
    >>> with Results(folder) as results:
    ...     _ = results.add(write_json(folder / "a.json", {}))
    ...     raise ValueError("no")
    Traceback (most recent call last):
    ValueError: no
    >>> folder.exists()
    False
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []
        own = [folder / name for name in (_DESCRIPTION, _IGNORE)]
        self._made_folder = not folder.exists()
        self._extra = [path for path in own if not path.exists()]

    def __str__(self) -> str:
        count = len(self.written)
        return f"{count} file{'s' if count != 1 else ''} in {self.folder}"

    def add(self, *paths: Path) -> Path:
        """Count files among the results; return the first."""
        self.written += paths
        return paths[0]

    def take_back(self) -> None:
        """Remove what was written, and the folder if it was made for it and is empty."""
        for path in [*self.written, *self._extra]:
            path.unlink(missing_ok=True)
        if self._made_folder and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.take_back()


def results_folder(out: Path | None, name: str) -> Path:
    """Return where results go by default: ``neuroxai-out/NAME``."""
    return out if out is not None else Path("neuroxai-out") / word(name)


def sidecar(path: Path) -> Path:
    """Return the JSON file beside a NIfTI file.

    Examples
    --------
    >>> sidecar(Path("a.nii.gz")).name
    'a.json'
    """
    return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.nii')}.json")


def word(text: str) -> str:
    """Return a text as one word of a file name, letters of any script kept.

    Examples
    --------
    >>> word("WT/../x y")
    'WT-x-y'
    """
    return re.sub(r"[^\w+]+", "-", text).strip("-") or "unnamed"


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write JSON whole or not at all."""
    with replaced_whole(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )
    return path


def describe_dataset(folder: Path) -> None:
    """Make a folder of results one that BIDS tools accept: description and ignore list."""
    description = folder / _DESCRIPTION
    if not description.exists():
        write_json(
            description,
            {
                "Name": "NeuroXAI explanations",
                "BIDSVersion": "1.11.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "NeuroXAI", "Version": __version__}],
                "Use": NOT_FOR_CLINICAL_USE,
            },
        )
    ignore = folder / _IGNORE
    if not ignore.exists():
        with replaced_whole(ignore) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in _NOT_BIDS), encoding="utf-8")


def write_table(table: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a table as CSV, whole or not at all."""
    with (
        replaced_whole(table) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return table
