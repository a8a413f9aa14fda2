"""Cases made ready for a network once, by many processes, and kept on disk."""

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
from neuroxai.training.data.jobs import Job, jobs_of
from neuroxai.training.data.split import PARTS, Member


class BeforeResampling(NamedTuple):
    """What a resampled case was in its own voxels.

    Attributes
    ----------
    way
        There and back.
    truth
        uint8, ``way.shape``: of the box that was resampled.
    """

    way: Resampling
    truth: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Prepared:
    """One case as the network will see it.

    Attributes
    ----------
    name, group
        The case, and the patient it belongs to.
    images
        float16; for volumes ``(C, X, Y, Z)`` cut to the box that holds anything, for slices
        ``(N, C, X, Y)``, the largest tumor slice first.
    truth
        uint8, indices into ``CLASSES``; for volumes ``(X, Y, Z)``, cut alike; for slices
        ``(N, X, Y)``.
    start, shape
        Where the box lies on the network's grid, and the size of that grid.
    counts
        Voxels of each of ``CLASSES`` on the patient's own grid, so that what a crop lost counts.
    spacing
        Millimeters, of the longest edge.
    voxel_mm3
        Volume of a voxel on the patient's own grid.
    wide
        Whether it is a phantom far from the typical case.
    grade
        For slices, the grade's index in the configuration's classes.
    before
        The patient's own voxels, where the network sees others.
    inside
        Where the patient's voxels begin and end along each axis of the network's grid; the rest
        is padding. None where all are the patient's.
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
    before: BeforeResampling | None = None
    inside: tuple[tuple[int, int], ...] | None = None

    def whole(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return image ``(C, *S)`` and truth ``(*S)`` on the whole network grid."""
        place = tuple(
            slice(low, low + size) for low, size in zip(self.start, self.truth.shape, strict=True)
        )
        image = np.zeros((len(self.images), *self.shape), dtype=np.float32)
        image[(slice(None), *place)] = self.images
        truth = np.zeros(self.shape, dtype=np.uint8)
        truth[place] = self.truth
        return image, truth


@dataclass(frozen=True, eq=False)
class Gathered:
    """The cases of a run, made ready, and who plays which part.

    Attributes
    ----------
    train, validation, test
        To learn from, to watch the training on, held out.
    split
        Every case of a cohort with its part; empty for phantoms, whose seeds say it.
    """

    train: list[Prepared]
    validation: list[Prepared]
    test: list[Prepared]
    split: list[Member]


def gather(config: Config, *, report: Report | None = None) -> Gathered:
    """Return the cases to train on, to watch the training on, and those held out.

    Each case is prepared once and kept in the cache folder under a hash of all that decides it, so
    the next start only maps files. A case without truth is refused by name; for a classifier one
    without tumor or grade is left out.

    Raises
    ------
    TrainingError
        If a part of the split is empty.
    CaseError
        If a case cannot be read.
    """
    parts, split = jobs_of(config)
    if not parts["train"]:
        raise TrainingError("the data source holds no case to train on")
    folder = _cache_folder(config)
    wanted = {job.key: job for jobs in parts.values() for job in jobs}
    todo = [job for job in wanted.values() if not _is_done(folder, job.key)]
    tell = report or (lambda *_: None)
    tell("Preparing cases", len(wanted) - len(todo), len(wanted))
    for done, _ in enumerate(_run(todo, folder, _worker_count(config)), start=1):
        tell("Preparing cases", len(wanted) - len(todo) + done, len(wanted))
    train, validation, test = (_load(folder, parts[part]) for part in PARTS)
    return Gathered(train, validation, test, split)


def _worker_count(config: Config) -> int:
    return config.workers or len(os.sched_getaffinity(0))


def _cache_folder(config: Config) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(config.cache) if config.cache else Path(base) / "neuroxai" / "training"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the cache cannot be made ({error.strerror})") from error
    return folder


def _run(jobs: Sequence[Job], folder: Path, workers: int) -> Iterator[None]:
    """Do ``jobs``, each in one of ``workers`` processes; yield after each."""
    try:
        yield from in_workers(partial(_prepare, folder=folder), jobs, workers)
    except BrokenProcessPool as error:
        raise TrainingError(
            "a process that prepares cases was killed, most likely for want of memory: "
            "set fewer workers, for example --set workers=1"
        ) from error


def _prepare(job: Job, folder: Path) -> None:
    """Make one case ready and put it in the cache."""
    from neuroxai.data.preprocessing import Preprocessing

    case = _case(job)
    preprocessing = Preprocessing.from_dict(json.loads(job.preprocessing))
    if case.truth is None and case.category is None:
        raise CaseError(f"{case.name}: has no truth, training needs one")
    given = np.zeros(0, np.uint8) if case.truth is None else case.truth
    counts = np.bincount(given.ravel(), minlength=len(CLASSES)).tolist()
    meta = {"name": case.name, "counts": counts, "spacing": max(case.spacing)}
    meta |= {"voxel_mm3": math.prod(case.spacing), "wide": bool(job.made.get("wide"))}
    if job.slices:
        images, truth = _slices(job, case, preprocessing)
        grade = job.classes.index(case.label) if case.label in job.classes else -1
        meta |= {"start": [0, 0], "shape": list(images.shape[2:]), "grade": grade}
    else:
        prepared = preprocessing.prepare(case)
        images, truth, start, shape = _volume(case, prepared)
        meta |= {"start": start, "shape": shape, "grade": -1}
        way = prepared.placement.resampling
        if way is not None:
            kept = prepared.placement.cut(prepared.placement.turn(given))
            _write(folder / f"{job.key}.t.npy", kept)
            meta["resampling"] = dataclasses.asdict(way)
        else:
            meta["inside"] = _inside(prepared.placement)
    _write(folder / f"{job.key}.x.npy", images)
    _write(folder / f"{job.key}.y.npy", truth)
    # Last, because its presence says that the others are whole.
    _write(folder / f"{job.key}.json", json.dumps(meta).encode())


def _case(job: Job) -> Case:
    if job.path:
        from neuroxai.data.brats import read_case
        from neuroxai.data.pictures import is_picture, read_picture

        wanted = json.loads(job.preprocessing)["modalities"]
        if is_picture(Path(job.path)):
            return read_picture(Path(job.path), json.loads(job.preprocessing)["size"])
        return read_case(job.path, modalities=tuple(dict.fromkeys(wanted)))
    from neuroxai.data.phantom import make_phantom

    return make_phantom(**job.made).case


def _inside(placement: Any) -> list[list[int]]:
    """Return where a patient's voxels begin and end along each axis of the network's grid."""
    held = placement.cut(np.ones(placement.turned_shape, bool))
    return [[side.start, side.stop] for side in bounding_box(held)]


def _volume(
    case: Case, prepared: Any
) -> tuple[NDArray[np.float16], NDArray[np.uint8], list[int], list[int]]:
    """Return image and truth cut to the box that holds anything."""
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
    """Return axial slices through the tumor, the largest first, and their truth.

    None from a case without tumor or without one of the grades: there is nothing to learn from it.
    """
    from neuroxai.data.preparation import truth_on_network_grid
    from neuroxai.data.slices import tumor_slices

    chosen: list[int] = []
    if case.label in job.classes:
        chosen = [0] if case.category is not None else tumor_slices(case, job.slices)
    if not chosen:
        return np.empty((0, 0, 0, 0), np.float16), np.empty((0, 0, 0), np.uint8)
    prepared = [preprocessing.prepare(case, slice_index=z) for z in chosen]
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
    """Write by renaming. Not synced: after a power cut a case is made again, that is all."""
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        with temporary.open("wb") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                np.save(stream, content, allow_pickle=False)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_done(folder: Path, key: str) -> bool:
    try:
        meta = json.loads((folder / f"{key}.json").read_bytes())
        for part in ("x", "y", "t") if "resampling" in meta else ("x", "y"):
            np.load(folder / f"{key}.{part}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return True


def _load(folder: Path, jobs: Sequence[Job]) -> list[Prepared]:
    """Map prepared cases from the cache; those with nothing in them are left out."""
    cases = []
    for job in jobs:
        truth = np.load(folder / f"{job.key}.y.npy", mmap_mode="r", allow_pickle=False)
        if not truth.size:
            continue
        meta = json.loads((folder / f"{job.key}.json").read_bytes())
        cases.append(
            Prepared(
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
                before=_before(folder, job, meta),
                inside=tuple((low, high) for low, high in meta["inside"])
                if "inside" in meta
                else None,
            )
        )
    return cases


def _before(folder: Path, job: Job, meta: Mapping[str, Any]) -> BeforeResampling | None:
    if "resampling" not in meta:
        return None
    way = Resampling(**{name: tuple(value) for name, value in meta["resampling"].items()})
    truth = np.load(folder / f"{job.key}.t.npy", mmap_mode="r", allow_pickle=False)
    return BeforeResampling(way, truth)
