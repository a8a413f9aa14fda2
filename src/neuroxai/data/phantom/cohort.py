"""Cohorts of phantoms, written as case folders in a BraTS layout."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroxai.core.errors import CaseError, OutputError
from neuroxai.core.workers import in_workers
from neuroxai.data.brats import write_case, write_name_mapping
from neuroxai.data.case import CLASSES, Grade
from neuroxai.data.layouts import file_name, get_layout, numbered_name
from neuroxai.data.nifti import write_nifti
from neuroxai.data.phantom.make import RECIPE, check_request, make_phantom
from neuroxai.files.atomic import atomic_path

TRUTH_FOLDER = ".phantom"
"""Folder in the cohort with the ground truth of each phantom; skipped when cases are read."""


@dataclass(frozen=True)
class Job:
    """Parameters of one case to write."""

    seed: int
    spacing: float
    layout: str
    variant: str | None
    wide: bool
    folder: str


def write_cohort(
    folder: str | os.PathLike[str],
    seeds: Iterable[int],
    *,
    spacing: float = 1.0,
    layout: str = "brats2021",
    variant: str | None = None,
    wide: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write one case per seed; existing cases made by the same recipe are kept.

    The cohort folder also contains ``phantoms.csv`` (name, seed, grade, spacing, variant),
    ``name_mapping.csv`` (grades, as in BraTS) and ``.phantom/<case>/`` with the tissue map, the
    planted cause and the recipe of each case.

    Parameters
    ----------
    seeds
        One case per seed; duplicates are ignored.
    spacing
        Voxel size in mm, 0.8 to 3.
    layout
        A name in :data:`~neuroxai.data.layouts.LAYOUTS`.
    variant
        Planted cause, one of :data:`~neuroxai.data.phantom.VARIANTS`.
    wide
        Draw far beyond the typical case, see :func:`make_phantom`.
    workers
        Number of processes; with 1, the calling process is used. With more, processes are
        spawned, so scripts need the guard ``if __name__ == "__main__"``.
    progress
        Called with the number of finished cases and the total, first with the existing cases.

    Returns
    -------
    list of Path
        Case folders, in the order of the seeds.

    Raises
    ------
    CaseError
        If an argument is out of range.
    OutputError
        If the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> [case.name for case in write_cohort(root, [3], spacing=3.0)]
    ['BraTS2021_00003']
    """
    root = Path(folder)
    wanted = list(dict.fromkeys(seeds))
    if workers < 1:
        raise CaseError(f"invalid number of workers {workers}; expected 1 or more")
    get_layout(layout)
    for seed in wanted:
        check_request(seed, spacing, None, variant, None, wide)
    jobs = {
        seed: Job(int(seed), float(spacing), layout, variant, wide, str(root)) for seed in wanted
    }
    notes: dict[int, dict[str, Any]] = {}
    for seed, job in jobs.items():
        if (note := _finished(job)) is not None:
            notes[seed] = note
    missing = [job for seed, job in jobs.items() if seed not in notes]
    if progress is not None:
        progress(len(notes), len(jobs))
    for note in _written(missing, workers):
        notes[note["seed"]] = note
        if progress is not None:
            progress(len(notes), len(jobs))
    if missing or not (root / "phantoms.csv").is_file():
        _write_tables(root, layout)
    return [root / notes[seed]["case"] for seed in wanted]


def _written(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Write the cases and yield the note of each when it is finished."""
    try:
        yield from in_workers(_write, jobs, workers)
    except BrokenProcessPool as error:
        raise OutputError(
            f"{jobs[0].folder}: a worker process died while writing phantoms, possibly out of "
            "memory; run again with fewer workers (finished cases are kept)"
        ) from error


def _write(job: Job) -> dict[str, Any]:
    """Make and write one case; the note is written last and marks the case as complete."""
    root, layout = Path(job.folder), get_layout(job.layout)
    note_path = _note_path(job)
    if note_path.exists():
        # Made by another recipe: incomplete until the new note is written.
        _remove_old(root, note_path)
    phantom = make_phantom(job.seed, spacing=job.spacing, variant=job.variant, wide=job.wide)
    truth = phantom.case.truth
    if truth is not None and "RC" in layout.labels:
        truth = np.where(phantom.cavity, np.uint8(CLASSES.index("RC")), truth)
    name = numbered_name(job.layout, job.seed)
    case = replace(phantom.case, name=name, layout=layout, truth=truth)
    place = write_case(case, root, job.layout, integer=True)
    known = note_path.parent
    write_nifti(known / "tissues.nii.gz", phantom.tissues, case.affine)
    note: dict[str, Any] = phantom.recipe | {
        "case": place.relative_to(root).as_posix(),
        "layout": job.layout,
    }
    if phantom.cause is not None:
        write_nifti(known / "cause.nii.gz", phantom.cause.mask.astype(np.uint8), case.affine)
        note["cause"] = {"variant": job.variant, "modalities": list(phantom.cause.modalities)}
    with atomic_path(note_path) as temporary:
        temporary.write_text(json.dumps(note, indent=1, sort_keys=True), encoding="utf-8")
    return note


def _note_path(job: Job) -> Path:
    name = numbered_name(job.layout, job.seed)
    return Path(job.folder) / TRUTH_FOLDER / name / "recipe.json"


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and isinstance(note.get("case"), str) else None


def _finished(job: Job) -> dict[str, Any] | None:
    """Return the note of an existing case that is complete and made by the same recipe."""
    note = _read_note(_note_path(job))
    expected = {
        "recipe": RECIPE, "seed": job.seed, "spacing": job.spacing, "layout": job.layout,
        "variant": job.variant, "wide": job.wide,
    }  # fmt: skip
    if note is None or any(note.get(key) != value for key, value in expected.items()):
        return None
    used, name = get_layout(job.layout), numbered_name(job.layout, job.seed)
    files = (file_name(name, used, what) for what in used.suffixes)
    place = Path(job.folder) / note["case"]
    return note if all((place / file).is_file() for file in files) else None


def _remove_old(root: Path, note_path: Path) -> None:
    """Remove only the files that another recipe wrote for this case."""
    note = _read_note(note_path)
    # The path is read from a file that may have been edited; it must stay within the cohort.
    if note is not None and (root / note["case"]).resolve().is_relative_to(root.resolve()):
        place = root / note["case"]
        for file in place.glob(f"{place.name}*.nii.gz"):
            file.unlink()
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    (note_path.parent / "cause.nii.gz").unlink(missing_ok=True)
    # Last, so that an interrupted removal is repeated by the next call.
    note_path.unlink()


def _write_tables(root: Path, layout: str) -> None:
    """Write the tables of all phantoms in the cohort folder, including those of earlier calls."""
    notes = [
        note
        for path in sorted((root / TRUTH_FOLDER).glob("*/recipe.json"))
        if (note := _read_note(path)) is not None
    ]
    grades: dict[str, Grade | None] = {Path(note["case"]).name: note["grade"] for note in notes}
    table = root / "phantoms.csv"
    with (
        atomic_path(table) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["name", "seed", "grade", "spacing", "variant"])
        for note in notes:
            rows.writerow([
                Path(note["case"]).name, note["seed"], note["grade"] or "",
                note["spacing"], note["variant"] or "",
            ])  # fmt: skip
    write_name_mapping(root, grades, layout)
