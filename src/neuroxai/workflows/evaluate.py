"""Evaluation of a network on a cohort with truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.accuracy.segmentation import dice, hausdorff95
from neuroxai.core.errors import CaseError, ModelError
from neuroxai.core.progress import Report
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case, region
from neuroxai.data.case_files import case_name as name_of_case
from neuroxai.data.case_files import find_cases, is_picture
from neuroxai.data.layouts import patient_id
from neuroxai.data.phantom.cohort import TRUTH_FOLDER
from neuroxai.data.pictures import find_pictures, picture_name, read_picture
from neuroxai.data.slices import tumor_slices
from neuroxai.models.model import Model
from neuroxai.quality import CaseQuality, checked, refusal
from neuroxai.workflows.device import choose_device, on_device
from neuroxai.workflows.predict import predict
from neuroxai.workflows.preparation import describe_model, mirrored


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation.

    Attributes
    ----------
    flips
        Average the probabilities over all mirror images.
    smallest_enhancement_mm3
        Relabel a smaller total enhancement as necrosis, as winners of the BraTS challenge do. By
        default the minimum in the model's card.
    slices
        Number of axial slices through the tumor of each case, for a 2D network.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    strict
        Exclude cases with an alarm of :func:`neuroxai.quality.check_case`.
    layout
        Layout of the cases' label values; detected from the file names by default.
    memory
        Memory that a pass may take, in bytes or as ``4GB``; by default 80 % of what is available.
    resample_to
        Modality whose grid files on other grids are resampled to; by default they are refused.
    """

    flips: bool = False
    smallest_enhancement_mm3: float | None = None
    slices: int = 8
    device: str = "auto"
    strict: bool = False
    layout: str | None = None
    memory: int | str | None = None
    resample_to: str | None = None


@dataclass(frozen=True)
class Overlap:
    """Agreement of one region with the truth in one case."""

    dice: float
    hausdorff95_mm: float
    found_ml: float
    true_ml: float


@dataclass(frozen=True)
class SegmentedCase:
    """The scores of one segmented case, by region."""

    name: str
    patient: str
    regions: Mapping[str, Overlap]


@dataclass(frozen=True, eq=False)
class GradedCase:
    """One classified case: its true class, and the probabilities ``(N, K)`` of its N slices."""

    name: str
    patient: str
    truth: int
    slices: tuple[str, ...]
    probabilities: NDArray[np.float64]

    @property
    def together(self) -> NDArray[np.float64]:
        """The case's probabilities, the mean over its slices."""
        mean: NDArray[np.float64] = self.probabilities.mean(axis=0)
        return mean


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a network on a cohort.

    Attributes
    ----------
    model
        Name and hashes of the network.
    task
        ``segmentation`` or ``classification``.
    classes
        The classes of a classifier.
    data
        The layout of the cases, with the prefix ``synthetic`` for phantoms.
    settings
        The settings of the evaluation.
    segmented, graded
        The cases of a segmenter or of a classifier; the other one is empty.
    left_out
        Name of each excluded case to the reason.
    pictures
        Whether the cases are pictures, which have no patient.
    quality
        Name of each case to the result of its check.
    """

    model: Mapping[str, str]
    task: str
    classes: tuple[str, ...]
    data: str
    settings: Settings
    segmented: tuple[SegmentedCase, ...] = ()
    graded: tuple[GradedCase, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pictures: bool = False
    quality: Mapping[str, CaseQuality] = dataclasses.field(default_factory=dict)

    @property
    def regions(self) -> tuple[str, ...]:
        """The tumor's regions that the network predicts."""
        return tuple(self.segmented[0].regions) if self.segmented else ()


def evaluate(
    model: Model,
    folders: Sequence[Path],
    settings: Settings | None = None,
    *,
    patients: Mapping[str, str] | None = None,
    progress: Report | None = None,
) -> Evaluation:
    """Score a network on cases with truth, on each patient's own grid.

    Parameters
    ----------
    model
        A segmenter of tumors, or a classifier of a grade.
    folders
        The cases.
    settings
        The settings of the evaluation.
    patients
        Case name to patient, for patients with several cases. By default from the case's name.
    progress
        Called with the stage, the number of finished cases, and of all cases.

    Raises
    ------
    ModelError
        If the network segments something else than tumors.
    CaseError
        If a case cannot be read, or all of them are excluded.
    """
    settings = settings or Settings()
    if settings.smallest_enhancement_mm3 is None:
        minimum = model.card.smallest_enhancement_mm3
        settings = dataclasses.replace(settings, smallest_enhancement_mm3=minimum)
    segments = model.card.task == "segmentation"
    segmented: list[SegmentedCase] = []
    graded: list[GradedCase] = []
    left_out: dict[str, str] = {}
    kinds: list[str] = []
    quality: dict[str, CaseQuality] = {}
    report = progress or (lambda stage, done, total: None)
    evaluated = _with_settings(model, settings)
    with on_device(evaluated.network, choose_device(settings.device)):
        for number, folder in enumerate(folders):
            report("Evaluating", number, len(folders))
            case = checked(_read(model, folder, settings))
            if case.quality is not None:
                quality[case.name] = case.quality
            name = case_name(folder, model.card.modalities)
            patient = (patients or {}).get(name) or patient_id(case.name)
            kinds.append(_kind(folder, case))
            reason = (_why_not_segmented if segments else _why_not_graded)(model, case)
            if reason is None and settings.strict and quality[case.name].alarms:
                reason = refusal(case).removeprefix(f"{case.name}: ")
            if reason is not None:
                left_out[case.name] = reason
            elif segments:
                segmented.append(_segment(evaluated, case, patient, settings))
            else:
                graded.append(_grade(evaluated, case, patient, settings))
    report("Evaluating", len(folders), len(folders))
    if not (segmented or graded):
        name, reason = next(iter(left_out.items()), ("", "no case was given"))
        raise CaseError(f"all cases are excluded; {name}: {reason}")
    return Evaluation(
        describe_model(model),
        model.card.task,
        () if segments else tuple(model.card.classes),
        " and ".join(dict.fromkeys(kinds)),
        settings,
        tuple(segmented),
        tuple(graded),
        left_out,
        pictures=all(map(is_picture, folders)),
        quality=quality,
    )


def case_name(path: Path, modalities: Sequence[str] = ()) -> str:
    """Return the name of a case or a picture in a split."""
    return picture_name(path) if is_picture(path) else name_of_case(path, modalities)


def _read(model: Model, folder: Path, settings: Settings) -> Case:
    if is_picture(folder):
        return read_picture(folder, model.card.preprocessing["size"])
    needed = tuple(dict.fromkeys(model.card.modalities))
    return read_case(
        folder, modalities=needed, layout=settings.layout, resample_to=settings.resample_to
    )


def _kind(folder: Path, case: Case) -> str:
    """Return the layout of a case, and whether it is synthetic."""
    if is_picture(folder):
        return f"pictures of {folder.parent.parent.name}"
    above = [*folder.parents][:2]
    synthetic = any((place / TRUTH_FOLDER).is_dir() for place in above)
    return f"synthetic {case.layout.name}" if synthetic else case.layout.name


def _with_settings(model: Model, settings: Settings) -> Model:
    """Return the model with the postprocessing and the mirroring of the settings."""
    smallest = settings.smallest_enhancement_mm3 or 0.0
    after = model.card.postprocessing.replace(smallest_enhancement_mm3=smallest)
    model = dataclasses.replace(model, card=model.card.replace(postprocessing=after))
    return mirrored(model) if settings.flips else model


def _why_not_segmented(model: Model, case: Case) -> str | None:
    """Return the reason why a case is excluded; None if it is scored."""
    return "has no truth to compare with" if case.truth is None else None


def _why_not_graded(model: Model, case: Case) -> str | None:
    """Return the reason why a case is excluded; None if it is scored."""
    classes = model.card.classes
    if case.label is None:
        return "has no grade"
    if case.label not in classes:
        return f"is {case.label}, which is not a class of the network ({', '.join(classes)})"
    if case.category is not None:
        return None
    if case.truth is None:
        return "has no truth to choose slices through the tumor"
    return None if tumor_slices(case, 1) else "has no tumor to choose slices"


def _segment(model: Model, case: Case, patient: str, settings: Settings) -> SegmentedCase:
    """Score the predicted regions of a case with truth."""
    prediction = predict(model, case, device=settings.device, memory=settings.memory)
    truth = case.truth
    if prediction.labels is None or truth is None:
        raise ModelError(f"{model.card.name}: predicts no labels, but its card has a segmentation")
    if not prediction.regions:
        *_, last = prediction.classes
        raise ModelError(
            f"{model.card.name}: segments {', '.join(prediction.classes[1:])}, which are not the "
            "labels of brain-tumor cases; add to its card which classes form a tumor region, for "
            f'example "regions": {{"WT": ["{last}"]}}'
        )
    voxel_ml = float(np.prod(case.spacing)) / 1000
    regions = {}
    for name in prediction.regions:
        found, true = prediction.mask(name), region(truth, name)
        regions[name] = Overlap(
            dice(found, true),
            hausdorff95(found, true, case.spacing),
            float(found.sum()) * voxel_ml,
            float(true.sum()) * voxel_ml,
        )
    return SegmentedCase(case.name, patient, regions)


def _grade(model: Model, case: Case, patient: str, settings: Settings) -> GradedCase:
    """Return the probabilities of a case's slices; a picture is one slice."""
    classes = list(model.card.classes)
    chosen = [0] if case.category is not None else tumor_slices(case, settings.slices)
    rows = [_probabilities(model, case, index, settings) for index in chosen]
    return GradedCase(
        case.name, patient, classes.index(str(case.label)), tuple(map(str, chosen)), np.array(rows)
    )


def _probabilities(model: Model, case: Case, slice_index: int, settings: Settings) -> list[float]:
    prediction = predict(
        model, case, slice_index=slice_index, device=settings.device, memory=settings.memory
    )
    return [prediction.probabilities[name] for name in model.card.classes]


def cases_of(
    cohort: Path,
    members: Mapping[str, str] | None,
    *,
    pictures: bool = False,
    modalities: Sequence[str] = (),
) -> Iterator[Path]:
    """Yield the case folders or the pictures of a cohort.

    Parameters
    ----------
    cohort
        The folder of the cohort.
    members
        The names of the cases to yield; None for all.
    pictures
        Whether the cases are pictures.
    modalities
        Modalities to recognize in addition to those of BraTS.

    Raises
    ------
    CaseError
        If a member does not exist, or two cases have the same name.
    """
    folders: dict[str, Path] = {}
    for folder in find_pictures(cohort) if pictures else find_cases(cohort, modalities):
        name = case_name(folder, modalities)
        if name in folders:
            raise CaseError(
                f"{cohort}: {folders[name]} and {folder} have the same case name {name}: rename "
                "one of them"
            )
        folders[name] = folder
    if members is None:
        yield from folders.values()
        return
    for name in members:
        if name not in folders:
            raise CaseError(f"{cohort}: case {name} of the split does not exist")
        yield folders[name]
