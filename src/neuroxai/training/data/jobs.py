"""Cases of a training: phantom seeds, case folders or pictures, and their part of the split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.core.errors import TrainingError
from neuroxai.training.config.config import Config
from neuroxai.training.config.sources import CohortSource, PhantomSource
from neuroxai.training.data.split import PARTS, Part, SplitEntry, make_split, site_of

_DATA = Path(__file__).parents[2] / "data"
_PREPARATION = (
    "preparation.py",
    "preprocessing.py",
    "intensity.py",
    "placement.py",
    "resampling.py",
    "slices.py",
)

_FORMAT = 8
"""Version of the cache files."""


@dataclass(frozen=True)
class Job:
    """Input of a worker that prepares one case.

    Attributes
    ----------
    key
        Hash of everything that determines the prepared case.
    group
        The patient.
    path
        Path of the case; empty for a phantom.
    phantom
        Arguments of :func:`~neuroxai.data.phantom.make_phantom`; empty for a case on disk.
    task, preprocessing, classes, slices
        From the configuration; the preprocessing recipe as JSON, and 0 slices for a segmenter.
    layout
        Layout of the label values; None if the file names define it.
    resample_to
        Modality whose grid files on other grids are resampled to; None to refuse them.
    """

    key: str
    group: str
    path: str
    phantom: Mapping[str, Any]
    task: str
    preprocessing: str
    classes: tuple[str, ...]
    slices: int
    layout: str | None = None
    resample_to: str | None = None


Jobs = dict[Part, list[Job]]


def list_jobs(config: Config) -> tuple[Jobs, list[SplitEntry]]:
    """List the cases of each part, and the split of a cohort (empty for phantoms).

    Raises
    ------
    TrainingError
        If the configuration has no data source, or the source does not match it.
    """
    if config.data.phantom is not None:
        return _phantom_jobs(config, config.data.phantom), []
    if config.data.pictures is not None:
        return _picture_jobs(config, config.data.pictures)
    if config.data.cohort is None:
        raise TrainingError(
            "the configuration has no data source; set data.phantom, data.cohort or data.pictures"
        )
    return _cohort_jobs(config, config.data.cohort)


def _phantom_jobs(config: Config, source: PhantomSource) -> Jobs:
    version = _code_version("phantom/*.py")
    spacings = source.spacings

    def job(seed: int, spacing: float, wide: bool, *, faint: bool = False) -> Job:
        phantom: dict[str, Any] = {
            "seed": seed, "spacing": spacing, "variant": source.variant, "wide": wide,
        }  # fmt: skip
        if faint:
            phantom["faint"] = True
        return _job(config, f"{version} {phantom}", f"seed-{seed}", phantom=phantom)

    def one_each(seeds: tuple[int, int], faint: float = 0.0) -> list[Job]:
        # From another seed on, so that the wide phantoms are not the faint ones.
        return [
            job(
                seed,
                spacings[seed % len(spacings)],
                _is_wide(seed, source.wide),
                faint=_is_wide(seed + 7001, faint),
            )
            for seed in range(*seeds)
        ]

    test = [
        job(seed, size, wide)
        for wide in ((False, True) if source.wide else (False,))
        for size in dict.fromkeys(spacings)
        for seed in range(*source.test)
    ]
    return {
        "train": one_each(source.train, source.faint),
        "validation": one_each(source.validation or (0, 0)),
        "test": test,
    }


def _is_wide(seed: int, fraction: float) -> bool:
    """Select a fraction of the seeds evenly, without a period that could coincide with others."""
    golden_ratio = 0.6180339887498949
    return (seed * golden_ratio) % 1 < fraction


def _cohort_jobs(config: Config, source: CohortSource) -> tuple[Jobs, list[SplitEntry]]:
    from neuroxai.data.brats import read_grade
    from neuroxai.data.case_files import case_name, find_cases
    from neuroxai.data.layouts import patient_id

    version = _code_version(
        "brats.py", "case_*.py", "file_names.py", "label_values.py", "layouts.py", "nifti*.py",
        "grid.py",
    )  # fmt: skip
    modalities = config.preprocessing.modalities
    paths = find_cases(Path(source.folder), modalities)
    names = [case_name(path, modalities) for path in paths]
    entries = [
        SplitEntry(name, patient_id(name), read_grade(path) or "", site_of(name))
        for name, path in zip(names, paths, strict=True)
    ]
    split = make_split(entries, source, config.seed)
    parts: Jobs = {part: [] for part in PARTS}
    for path, entry in zip(paths, split, strict=True):
        identity = f"{version} {_fingerprint(path, modalities)} {entry.grade} {source.layout}"
        identity += f" {source.resample_to}"
        parts[entry.part].append(_job(config, identity, entry.patient, path=str(path)))
    return parts, split


def _picture_jobs(config: Config, source: CohortSource) -> tuple[Jobs, list[SplitEntry]]:
    from neuroxai.data.pictures import find_pictures, picture_name

    version = _code_version("pictures.py")
    paths = find_pictures(Path(source.folder))
    entries = [
        SplitEntry(picture_name(path), picture_name(path), path.parent.name) for path in paths
    ]
    folders = sorted({entry.grade for entry in entries})
    if folders != sorted(config.classes):
        raise TrainingError(
            f"{source.folder}: has the class folders {', '.join(folders)}, but the configuration "
            f"has the classes {', '.join(config.classes)}; set classes=[{','.join(folders)}] and "
            f"arguments.out_channels={len(folders)}"
        )
    split = make_split(entries, source, config.seed)
    parts: Jobs = {part: [] for part in PARTS}
    for path, entry in zip(paths, split, strict=True):
        state = path.stat()
        identity = f"{version} {path} {state.st_size} {state.st_mtime_ns}"
        parts[entry.part].append(_job(config, identity, entry.patient, path=str(path)))
    return parts, split


def _job(
    config: Config,
    identity: str,
    group: str,
    *,
    path: str = "",
    phantom: Mapping[str, Any] | None = None,
) -> Job:
    preprocessing = json.dumps(config.preprocessing.to_dict(), sort_keys=True)
    slices = config.slices_per_case if config.task == "classification" else 0
    classes = config.classes if slices else ()
    text = json.dumps([identity, preprocessing, config.task, slices, list(classes), _FORMAT])
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    phantom = dict(phantom or {})
    cohort = config.data.cohort
    read = (None, None) if cohort is None else (cohort.layout, cohort.resample_to)
    return Job(key, group, path, phantom, config.task, preprocessing, classes, slices, *read)


def _code_version(*patterns: str) -> str:
    """Hash of the code that determines the cases, so that a change of it invalidates the cache."""
    digest = hashlib.sha256()
    for pattern in (*_PREPARATION, *patterns):
        for path in sorted(_DATA.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _fingerprint(case: Path, modalities: Sequence[str]) -> str:
    """Names, sizes and times of a case's files; hashing a cohort would take an hour."""
    from neuroxai.data.case_files import files_of

    return json.dumps(
        [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for path in files_of(case, modalities)
        ]
    )
