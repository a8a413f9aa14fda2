"""Which cases a run is made of: a seed, a folder or a picture each, and the part it plays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.core.errors import TrainingError
from neuroxai.training.config.config import Config
from neuroxai.training.config.sources import CohortSource, PhantomSource
from neuroxai.training.data.split import PARTS, Member, Part, draw_split, site_of

_DATA = Path(__file__).parents[2] / "data"
_PREPARE = (
    "preparation.py",
    "preprocessing.py",
    "intensity.py",
    "placement.py",
    "resampling.py",
    "slices.py",
)


@dataclass(frozen=True)
class Job:
    """What one worker needs to make one case ready; ``key`` is a hash of all that decides it."""

    key: str
    group: str
    path: str
    made: Mapping[str, Any]
    """How a phantom is made; empty for a case on disk."""
    task: str
    preprocessing: str
    classes: tuple[str, ...]
    slices: int


Jobs = dict[Part, list[Job]]


def jobs_of(config: Config) -> tuple[Jobs, list[Member]]:
    """Return what is to be made ready for each part, and who of a cohort plays which.

    Raises
    ------
    TrainingError
        If the configuration names no source, or the source does not fit it.
    """
    if config.data.phantom is not None:
        return _phantom_jobs(config, config.data.phantom), []
    if config.data.pictures is not None:
        return _picture_jobs(config, config.data.pictures)
    if config.data.cohort is None:
        raise TrainingError("the configuration names no data source")
    return _cohort_jobs(config, config.data.cohort)


def _phantom_jobs(config: Config, source: PhantomSource) -> Jobs:
    version = _code_version("phantom/*.py")
    spacings = source.spacings

    def job(seed: int, spacing: float, wide: bool) -> Job:
        made = {"seed": seed, "spacing": spacing, "variant": source.variant, "wide": wide}
        return _job(config, f"{version} {made}", f"seed-{seed}", made=made)

    def mixed(seeds: tuple[int, int]) -> list[Job]:
        return [
            job(seed, spacings[seed % len(spacings)], _is_wide(seed, source.wide))
            for seed in range(*seeds)
        ]

    test = [
        job(seed, size, wide)
        for wide in ((False, True) if source.wide else (False,))
        for size in dict.fromkeys(spacings)
        for seed in range(*source.test)
    ]
    return {
        "train": mixed(source.train),
        "validation": mixed(source.validation or (0, 0)),
        "test": test,
    }


def _is_wide(seed: int, share: float) -> bool:
    """Spread the wide phantoms evenly over the seeds, whatever else goes by turns."""
    golden = 0.6180339887498949
    return (seed * golden) % 1 < share


def _cohort_jobs(config: Config, source: CohortSource) -> tuple[Jobs, list[Member]]:
    from neuroxai.data.brats import case_name, find_cases, read_grade
    from neuroxai.data.layouts import patient_id

    version = _code_version("brats.py", "layouts.py", "nifti.py")
    paths = find_cases(Path(source.folder))
    names = [case_name(path) for path in paths]
    found = [
        Member(name, patient_id(name), read_grade(path) or "", site_of(name))
        for name, path in zip(names, paths, strict=True)
    ]
    split = draw_split(found, source, config.seed)
    parts: Jobs = {part: [] for part in PARTS}
    for path, member in zip(paths, split, strict=True):
        identity = f"{version} {_fingerprint(path)} {member.grade}"
        parts[member.part].append(_job(config, identity, member.patient, path=str(path)))
    return parts, split


def _picture_jobs(config: Config, source: CohortSource) -> tuple[Jobs, list[Member]]:
    from neuroxai.data.pictures import find_pictures, picture_name

    version = _code_version("pictures.py")
    paths = find_pictures(Path(source.folder))
    found = [Member(picture_name(path), picture_name(path), path.parent.name, "") for path in paths]
    folders = sorted({member.grade for member in found})
    if folders != sorted(config.classes):
        raise TrainingError(
            f"{source.folder}: has folders for {', '.join(folders)}, the configuration has the "
            f"classes {', '.join(config.classes)}; set classes=[{','.join(folders)}] and "
            f"arguments.out_channels={len(folders)}"
        )
    split = draw_split(found, source, config.seed)
    parts: Jobs = {part: [] for part in PARTS}
    for path, member in zip(paths, split, strict=True):
        state = path.stat()
        identity = f"{version} {path} {state.st_size} {state.st_mtime_ns}"
        parts[member.part].append(_job(config, identity, member.patient, path=str(path)))
    return parts, split


def _job(
    config: Config,
    identity: str,
    group: str,
    *,
    path: str = "",
    made: Mapping[str, Any] | None = None,
) -> Job:
    preprocessing = json.dumps(config.preprocessing.to_dict(), sort_keys=True)
    slices = config.slices_per_case if config.task == "classification" else 0
    classes = config.classes if slices else ()
    text = json.dumps([identity, preprocessing, config.task, slices, list(classes), 7])
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Job(key, group, path, dict(made or {}), config.task, preprocessing, classes, slices)


def _code_version(*patterns: str) -> str:
    """Return a hash of the code that makes the cases: another version makes other cases."""
    digest = hashlib.sha256()
    for pattern in (*_PREPARE, *patterns):
        for path in sorted(_DATA.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _fingerprint(folder: Path) -> str:
    """Return names, sizes and times of a case's files; reading them all would take an hour."""
    return json.dumps(
        [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(folder.iterdir())
        ]
    )
