"""Preparation of cases in parallel processes, with a cache on disk."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError, OutputError, TrainingError
from neuroxai.core.progress import Report
from neuroxai.core.workers import in_workers
from neuroxai.data.case import CLASSES, Case
from neuroxai.data.resampling import Resampling
from neuroxai.training.config.config import Config
from neuroxai.training.data.jobs import Job, list_jobs
from neuroxai.training.data.split import PARTS, SplitEntry


class OriginalGrid(NamedTuple):
    """Truth of a resampled case on its original grid.

    Attributes
    ----------
    resampling
        Resampling between the original and the network's grid.
    truth
        uint8, ``resampling.shape``: the box that was resampled.
    """

    resampling: Resampling
    truth: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case on the network's grid.

    Attributes
    ----------
    name, group
        Name of the case and of its patient.
    images
        float16. Volumes ``(C, X, Y, Z)``, cropped to the bounding box of nonzero voxels, or slices
        ``(N, C, X, Y)``, the one with the largest tumor area first.
    truth
        uint8, indices into ``CLASSES``. Volumes ``(X, Y, Z)``, cropped like the images, or slices
        ``(N, X, Y)``.
    start, shape
        Position of the bounding box on the network's grid, and the shape of that grid.
    counts
        Number of voxels of each of ``CLASSES`` on the patient's grid, including voxels that
        cropping removed.
    spacing
        Longest voxel edge in mm.
    voxel_mm3
        Voxel volume on the patient's grid.
    wide
        Whether it is a phantom of wide variety.
    grade
        For slices, the index of the grade in the configuration's classes.
    original
        Truth on the patient's grid, for resampled cases.
    unpadded
        First and last voxel (exclusive) of the patient's image along each axis of the network's
        grid; the rest is padding. None without padding.
    """

    name: str
    group: str
    images: NDArray[np.float16]
    truth: NDArray[np.uint8]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    counts: tuple[int, ...]
    spacing: float
    voxel_mm3: float
    wide: bool = False
    grade: int = -1
    original: OriginalGrid | None = None
    unpadded: tuple[tuple[int, int], ...] | None = None

    def uncropped(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Image ``(C, *S)`` and truth ``(*S)`` on the whole network grid."""
        box = tuple(
            slice(low, low + size) for low, size in zip(self.start, self.truth.shape, strict=True)
        )
        image = np.zeros((len(self.images), *self.shape), dtype=np.float32)
        image[(slice(None), *box)] = self.images
        truth = np.zeros(self.shape, dtype=np.uint8)
        truth[box] = self.truth
        return image, truth


@dataclass(frozen=True, eq=False)
class PreparedCases:
    """Prepared cases of each part of the split.

    Attributes
    ----------
    train, validation, test
        Cases of each part.
    split
        Every case of a cohort with its part; empty for phantoms, whose seeds define the split.
    """

    train: list[PreparedCase]
    validation: list[PreparedCase]
    test: list[PreparedCase]
    split: list[SplitEntry]


def prepare_cases(config: Config, *, report: Report | None = None) -> PreparedCases:
    """Prepare the cases of a training, or read them from the cache.

    Each case is stored in the cache folder under a hash of everything that determines it, so the
    next training maps the files. For a classifier, cases without tumor or grade are left out.

    Raises
    ------
    TrainingError
        If there is no training case.
    CaseError
        If a case cannot be read, or has no truth.
    """
    parts, split = list_jobs(config)
    if not parts["train"]:
        raise TrainingError("the data source has no training case; add cases, or hold out fewer")
    folder = _cache_folder(config)
    wanted = {job.key: job for jobs in parts.values() for job in jobs}
    missing = [job for job in wanted.values() if not _is_cached(folder, job.key)]
    notify = report or (lambda *_: None)
    notify("Preparing cases", len(wanted) - len(missing), len(wanted))
    for done, _ in enumerate(_run(missing, folder, _worker_count(config)), start=1):
        notify("Preparing cases", len(wanted) - len(missing) + done, len(wanted))
    train, validation, test = (_load(folder, parts[part]) for part in PARTS)
    return PreparedCases(train, validation, test, split)


def _worker_count(config: Config) -> int:
    return config.workers or len(os.sched_getaffinity(0))


def _cache_folder(config: Config) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(config.cache) if config.cache else Path(base) / "neuroxai" / "training"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot create the cache folder ({error.strerror}); set cache to another one"
        ) from error
    return folder


def _run(jobs: Sequence[Job], folder: Path, workers: int) -> Iterator[None]:
    """Run ``jobs`` in ``workers`` processes; yield after each."""
    try:
        yield from in_workers(partial(_prepare, folder=folder), jobs, workers)
    except BrokenProcessPool as error:
        raise TrainingError(
            "a process that prepares cases was killed, probably because memory ran out; use fewer "
            "workers, for example --set workers=1"
        ) from error


def _prepare(job: Job, folder: Path) -> None:
    """Prepare one case and write it to the cache."""
    from neuroxai.data.preprocessing import Preprocessing

    case = _case(job)
    preprocessing = Preprocessing.from_dict(json.loads(job.preprocessing))
    if case.truth is None and case.category is None:
        raise CaseError(
            f"{case.name}: has no truth (segmentation), which training requires; remove the case"
        )
    truth_given = np.zeros(0, np.uint8) if case.truth is None else case.truth
    counts = np.bincount(truth_given.ravel(), minlength=len(CLASSES)).tolist()
    meta = {"name": case.name, "counts": counts, "spacing": max(case.spacing)}
    meta |= {"voxel_mm3": math.prod(case.spacing), "wide": bool(job.phantom.get("wide"))}
    if job.slices:
        images, truth = _slices(job, case, preprocessing)
        grade = job.classes.index(case.label) if case.label in job.classes else -1
        meta |= {"start": [0, 0], "shape": list(images.shape[2:]), "grade": grade}
    else:
        prepared = preprocessing.prepare(case)
        images, truth, start, shape = _volume(case, prepared)
        meta |= {"start": start, "shape": shape, "grade": -1}
        resampling = prepared.placement.resampling
        if resampling is not None:
            original = prepared.placement.crop_or_pad(prepared.placement.reorient(truth_given))
            _write(folder / f"{job.key}.t.npy", original)
            meta["resampling"] = dataclasses.asdict(resampling)
        else:
            meta["unpadded"] = _unpadded(prepared.placement)
    _write(folder / f"{job.key}.x.npy", images)
    _write(folder / f"{job.key}.y.npy", truth)
    # Last, because it marks the other files as complete.
    _write(folder / f"{job.key}.json", json.dumps(meta).encode())


def _case(job: Job) -> Case:
    if job.path:
        from neuroxai.data.brats import read_case
        from neuroxai.data.case_files import is_picture
        from neuroxai.data.pictures import read_picture

        recipe = json.loads(job.preprocessing)
        if is_picture(Path(job.path)):
            return read_picture(Path(job.path), recipe["size"])
        modalities = tuple(dict.fromkeys(recipe["modalities"]))
        return read_case(
            job.path, modalities=modalities, layout=job.layout, resample_to=job.resample_to
        )
    from neuroxai.data.phantom import make_phantom

    return make_phantom(**job.phantom).case


def _unpadded(placement: Any) -> list[list[int]]:
    """First and last voxel (exclusive) of the patient's image along each axis of the grid."""
    image = placement.crop_or_pad(np.ones(placement.reoriented_shape, bool))
    return [[side.start, side.stop] for side in bounding_box(image)]


def _volume(
    case: Case, prepared: Any
) -> tuple[NDArray[np.float16], NDArray[np.uint8], list[int], list[int]]:
    """Crop image and truth to the bounding box of nonzero voxels."""
    from neuroxai.data.preparation import truth_on_network_grid

    x = prepared.x[0].numpy()
    y = truth_on_network_grid(case, prepared.placement).astype(np.uint8)
    box = bounding_box((x != 0).any(axis=0) | (y > 0))
    return (
        np.ascontiguousarray(x[(slice(None), *box)], dtype=np.float16),
        np.ascontiguousarray(y[box]),
        [side.start for side in box],
        list(y.shape),
    )


def _slices(
    job: Job, case: Case, preprocessing: Any
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Axial slices through the tumor, the one with the largest tumor area first, and their truth.

    Empty for a case without tumor or without one of the configuration's grades.
    """
    from neuroxai.data.preparation import truth_on_network_grid
    from neuroxai.data.slices import tumor_slices

    indices: list[int] = []
    if case.label in job.classes:
        indices = [0] if case.category is not None else tumor_slices(case, job.slices)
    if not indices:
        return np.empty((0, 0, 0, 0), np.float16), np.empty((0, 0, 0), np.uint8)
    prepared = [preprocessing.prepare(case, slice_index=z) for z in indices]
    tissue = [
        np.zeros(each.x.shape[2:], np.uint8)
        if case.truth is None
        else truth_on_network_grid(case, each.placement)
        for each in prepared
    ]
    return (
        np.stack([each.x[0].numpy() for each in prepared]).astype(np.float16),
        np.stack(tissue).astype(np.uint8),
    )


def _write(path: Path, content: NDArray[Any] | bytes) -> None:
    """Write atomically, without syncing: after a power failure the case is prepared again."""
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        with temporary.open("wb") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                np.save(stream, content, allow_pickle=False)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free space, or set cache"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_cached(folder: Path, key: str) -> bool:
    try:
        meta = json.loads((folder / f"{key}.json").read_bytes())
        for part in ("x", "y", "t") if "resampling" in meta else ("x", "y"):
            np.load(folder / f"{key}.{part}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return True


def _load(folder: Path, jobs: Sequence[Job]) -> list[PreparedCase]:
    """Map prepared cases from the cache, without empty ones."""
    cases = []
    for job in jobs:
        truth = np.load(folder / f"{job.key}.y.npy", mmap_mode="r", allow_pickle=False)
        if not truth.size:
            continue
        meta = json.loads((folder / f"{job.key}.json").read_bytes())
        cases.append(
            PreparedCase(
                name=meta["name"],
                group=job.group,
                images=np.load(folder / f"{job.key}.x.npy", mmap_mode="r", allow_pickle=False),
                truth=truth,
                start=tuple(meta["start"]),
                shape=tuple(meta["shape"]),
                counts=tuple(meta["counts"]),
                spacing=float(meta["spacing"]),
                voxel_mm3=float(meta["voxel_mm3"]),
                wide=bool(meta["wide"]),
                grade=int(meta["grade"]),
                original=_original(folder, job, meta),
                unpadded=tuple((low, high) for low, high in meta["unpadded"])
                if "unpadded" in meta
                else None,
            )
        )
    return cases


def _original(folder: Path, job: Job, meta: Mapping[str, Any]) -> OriginalGrid | None:
    if "resampling" not in meta:
        return None
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in meta["resampling"].items()
    }
    resampling = Resampling(**given)
    truth = np.load(folder / f"{job.key}.t.npy", mmap_mode="r", allow_pickle=False)
    return OriginalGrid(resampling, truth)
