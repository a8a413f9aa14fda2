"""Result folders: all files of a run or none, described for BIDS tools."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from neuroxai.core.errors import OutputError
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import atomic_path, write_json
from neuroxai.version import __version__

_DESCRIPTION, _IGNORE = "dataset_description.json", ".bidsignore"

_NOT_BIDS = (
    "*_statmap.*", "*_dseg.txt", "*_dseg.ctbl", "*_montage-*.png", "*_flow.png", "*_page-*.png",
    "best_*.csv", "cases.csv", "dissection.*", "evaluation*", "flow.json",
    "modality_shapley.*", "prediction.json", "slices.csv", "summary.json", "tables.csv",
)  # fmt: skip
"""Files that the BIDS standard does not define."""


class Results:
    """Context manager that collects the files of a run and publishes all of them, or none.

    Files are written to a temporary folder, and moved to the final folder on success. If the run
    fails or is interrupted, the final folder is unchanged.

    Parameters
    ----------
    folder
        Final folder; it is created if necessary.

    Attributes
    ----------
    folder
        Folder to write to: temporary inside the context, final before and after.
    written
        Files written so far, in order.
    kept
        Number of files from earlier runs in the final folder, after the run.

    Raises
    ------
    OutputError
        On entry, if the folder is a file or is not writable; from :meth:`add`, if a file is added
        twice.

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
        self._final = folder

    def __str__(self) -> str:
        count = len(self.written)
        kept = f", and {self.kept} from earlier runs" if self.kept else ""
        return f"{count} file{'s' if count != 1 else ''} in {self.folder}{kept}"

    def add(self, *paths: Path) -> Path:
        """Register files as results; return the first."""
        for path in paths:
            if path in self.written:
                raise OutputError(
                    f"{self._final_path(path)}: written twice in one run; request results of the "
                    "same file name in separate runs, each with its own --out"
                )
            self.written.append(path)
        return paths[0]

    def drop_unfinished(self) -> None:
        """Remove files that were not added, such as those of an interrupted method."""
        own = {_DESCRIPTION, _IGNORE}
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.written and path.name not in own:
                path.unlink()

    def __enter__(self) -> Results:
        if self._final.exists() and not self._final.is_dir():
            raise OutputError(f"{self._final}: is a file, expected a folder for results")
        # In the final folder or its nearest existing parent: moving within a disk is a rename.
        parent = next(
            path for path in (self._final, *self._final.absolute().parents) if path.exists()
        )
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=".neuroxai-", dir=parent))
        except OSError as error:
            raise OutputError(
                f"{self._final}: cannot be written ({error.strerror or error})"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        temporary, self.folder = self.folder, self._final
        try:
            if error is None:
                self._publish(temporary)
            elif isinstance(error, OutputError) and str(temporary) in str(error):
                # The user knows the final folder only.
                raise OutputError(str(error).replace(str(temporary), str(self._final))) from error
            elif isinstance(error, KeyboardInterrupt):
                error.add_note("nothing was written")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _final_path(self, path: Path) -> Path:
        inside = self.folder in path.parents
        return self._final / path.relative_to(self.folder) if inside else path

    def _publish(self, temporary: Path) -> None:
        """Move the files to the final folder; an existing data set description is kept."""
        own = {_DESCRIPTION, _IGNORE}
        # Compared by name, because the temporary path may be absolute and the final one relative.
        before = {
            path
            for path in self._final.rglob("*")
            if path.is_file() and path.name not in own and temporary.name not in path.parts
        }
        try:
            for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
                to = self._final / path.relative_to(temporary)
                if to.name in own and to.exists():
                    continue
                to.parent.mkdir(parents=True, exist_ok=True)
                path.replace(to)
        except OSError as error:
            raise OutputError(
                f"{self._final}: cannot be written ({error.strerror or error})"
            ) from error
        self.written = [
            self._final / path.relative_to(temporary) if temporary in path.parents else path
            for path in self.written
        ]
        self.kept = len(before - {*self.written})


@contextmanager
def open_results(out: Path | Results) -> Iterator[Results]:
    """Context manager for results to write to, given as a folder or as entered results.

    Entered results are left open for their owner, who can thus find out that a folder is not
    writable before anything is computed.

    Examples
    --------
    >>> import tempfile
    >>> with Results(Path(tempfile.mkdtemp())) as results, open_results(results) as same:
    ...     same is results
    True
    """
    if isinstance(out, Results):
        yield out
        return
    with Results(out) as results:
        yield results


def refuse_other_case(folder: Path, name: str, case: str) -> None:
    """Raise if a folder's summary file belongs to another case, and would be overwritten.

    Raises
    ------
    OutputError
        If the file names another case.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = write_json(folder / "summary.json", {"case": "one"})
    >>> refuse_other_case(folder, "summary.json", "one")
    """
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is no such file, or it is from another program
        return
    other = found.get("case") if isinstance(found, dict) else None
    if other is not None and other != case:
        raise OutputError(
            f"{folder / name}: belongs to the case {other} and would be overwritten by {case}; "
            "choose another folder with --out"
        )


def describe_dataset(folder: Path) -> None:
    """Add the files that make a folder a BIDS derivative: description and ignore list."""
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
        with atomic_path(ignore) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in _NOT_BIDS), encoding="utf-8")
