"""A folder of results: described for BIDS tools, its files kept together or taken back together."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from neuroxai.core.errors import OutputError
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import replaced_whole
from neuroxai.version import __version__

_DESCRIPTION, _IGNORE = "dataset_description.json", ".bidsignore"

_NOT_BIDS = (
    "*_statmap.*", "*_montage-*.png", "*_flow.png", "*_page-*.png",
    "best_*.csv", "cases.csv", "dissection.*", "evaluation*", "flow.json", "prediction.json",
    "slices.csv", "summary.json", "tables.csv",
)  # fmt: skip
"""What the standard has no name for."""


class Results:
    """The files of one run: all of them, or none.

    As a context it has them written beside the folder, and moves them there in the end. If the
    run fails or is broken off, what an earlier run has left in the folder is untouched.

    Parameters
    ----------
    folder
        Where they are to be; it need not exist yet.

    Attributes
    ----------
    folder
        Where to write them now.
    written
        The files so far, in order.
    kept
        How many files were in the folder before and are still there, after the run.

    Raises
    ------
    OutputError
        On entering, if the folder is a file or cannot be written to; on adding, if a file is there
        already, which two things of one name would write over each other.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "out"
    >>> with Results(out) as results:
    ...     _ = results.add(write_json(results.folder / "a.json", {}))
    >>> str(results) == f"1 file in {out}", [path.name for path in out.iterdir()]
    (True, ['a.json'])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self.kept = 0
        self._place = folder

    def __str__(self) -> str:
        count = len(self.written)
        beside = f", beside {self.kept} of earlier runs" if self.kept else ""
        return f"{count} file{'s' if count != 1 else ''} in {self.folder}{beside}"

    def add(self, *paths: Path) -> Path:
        """Count files among the results; return the first."""
        for path in paths:
            if path in self.written:
                raise OutputError(
                    f"{self._final(path)}: is written twice in one run, the second time over the "
                    "first: ask for what has one name one after the other, each with its own --out"
                )
            self.written.append(path)
        return paths[0]

    def __enter__(self) -> Results:
        if self._place.exists() and not self._place.is_dir():
            raise OutputError(f"{self._place}: is a file, expected a folder for results")
        # In the folder itself, or in the nearest one there is: moving costs nothing there.
        near = next(
            path for path in (self._place, *self._place.absolute().parents) if path.exists()
        )
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=".neuroxai-", dir=near))
        except OSError as error:
            raise OutputError(
                f"{self._place}: cannot be written ({error.strerror or error})"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        made, self.folder = self.folder, self._place
        try:
            if error is None:
                self._move(made)
            elif isinstance(error, OutputError) and str(made) in str(error):
                # A user knows where the file was to be, and soon nobody where it was in between.
                raise OutputError(str(error).replace(str(made), str(self._place))) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _final(self, path: Path) -> Path:
        """Return where a file is to be in the end."""
        inside = self.folder in path.parents
        return self._place / path.relative_to(self.folder) if inside else path

    def _move(self, made: Path) -> None:
        """Move the files to where they are to be; the folder's own description stays."""
        own = {_DESCRIPTION, _IGNORE}
        # By its name: where Python gives it as an absolute path, the folder may be a relative one.
        before = {
            path
            for path in self._place.rglob("*")
            if path.is_file() and path.name not in own and made.name not in path.parts
        }
        try:
            for path in sorted(path for path in made.rglob("*") if path.is_file()):
                to = self._place / path.relative_to(made)
                if to.name in own and to.exists():
                    continue
                to.parent.mkdir(parents=True, exist_ok=True)
                path.replace(to)
        except OSError as error:
            raise OutputError(
                f"{self._place}: cannot be written ({error.strerror or error})"
            ) from error
        self.written = [
            self._place / path.relative_to(made) if made in path.parents else path
            for path in self.written
        ]
        self.kept = len(before - {*self.written})


@contextmanager
def opened(out: Path | Results) -> Iterator[Results]:
    """Give results to write into: a folder's own, or those that somebody has entered before.

    These are left to whoever entered them, so that it is known whether they can be written before
    there is anything to write.

    Examples
    --------
    >>> import tempfile
    >>> with Results(Path(tempfile.mkdtemp())) as results, opened(results) as same:
    ...     same is results
    True
    """
    if isinstance(out, Results):
        yield out
        return
    with Results(out) as results:
        yield results


def results_folder(out: Path | None, name: str) -> Path:
    """Return where results go by default: ``neuroxai-out/NAME``."""
    return out if out is not None else Path("neuroxai-out") / slug(name)


def refuse_other_case(folder: Path, name: str, case: str) -> None:
    """Refuse a folder whose file of a case's numbers is of another case: it would be lost.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = write_json(folder / "summary.json", {"case": "one"})
    >>> refuse_other_case(folder, "summary.json", "one")
    """
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or none of ours
        return
    other = found.get("case") if isinstance(found, dict) else None
    if other is not None and other != case:
        raise OutputError(
            f"{folder / name}: is of the case {other}, and that of {case} would be written over "
            "it: give another folder with --out"
        )


def sidecar(path: Path) -> Path:
    """Return the JSON file beside a NIfTI file.

    Examples
    --------
    >>> sidecar(Path("a.nii.gz")).name
    'a.json'
    """
    return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.nii')}.json")


def slug(text: str) -> str:
    """Return a text as one word of a file name, letters of any script kept.

    Examples
    --------
    >>> slug("WT/../x y")
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
