"""The hall where a cohort with its truth and a network meet, to see how good its answers are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.accuracy.segmentation import dice, hausdorff95
from neuroxai.core.errors import CaseError, ModelError
from neuroxai.core.probe.ensemble import Mirrored
from neuroxai.core.progress import Report
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case, region
from neuroxai.data.case_files import case_name as name_of_folder
from neuroxai.data.case_files import find_cases, is_picture
from neuroxai.data.layouts import patient_id
from neuroxai.data.phantom.cohort import TRUTH_FOLDER
from neuroxai.data.pictures import find_pictures, picture_name, read_picture
from neuroxai.data.slices import tumor_slices
from neuroxai.models.model import Model
from neuroxai.workflows.explain import describe_model, predict


@dataclass(frozen=True)
class Settings:
    """How a network is asked.

    Attributes
    ----------
    flips
        Also about every mirror image, and the mean of the probabilities counts.
    smallest_enhancement_mm3
        Enhancement of less in all is called necrosis, as the BraTS challenge's winners do; None
        does as the network's card says.
    slices
        Axial slices through the tumor that a 2D network is asked about in each case.
    device
        ``auto``, ``cpu``, ``cuda``.
    """

    flips: bool = False
    smallest_enhancement_mm3: float | None = None
    slices: int = 8
    device: str = "auto"


@dataclass(frozen=True)
class Overlap:
    """How well one region of one case was found."""

    dice: float
    hausdorff95_mm: float
    found_ml: float
    true_ml: float


@dataclass(frozen=True)
class SegmentedCase:
    """One case and what was measured of it, region by region."""

    name: str
    patient: str
    regions: Mapping[str, Overlap]


@dataclass(frozen=True, eq=False)
class GradedCase:
    """One case, its true class, and the probabilities ``(N, K)`` of its N slices."""

    name: str
    patient: str
    truth: int
    slices: tuple[str, ...]
    probabilities: NDArray[np.float64]

    @property
    def together(self) -> NDArray[np.float64]:
        """The probabilities of the case: the mean over its slices."""
        mean: NDArray[np.float64] = self.probabilities.mean(axis=0)
        return mean


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured of a network over a cohort.

    Attributes
    ----------
    model
        Name and hashes of the network.
    task
        ``segmentation`` or ``classification``.
    classes
        A classifier's classes.
    data
        What the cases are: a layout's name, with ``synthetic`` in front for phantoms.
    settings
        How it was asked.
    segmented, graded
        The cases; one of the two is empty.
    left_out
        Cases that could not be counted, each with the reason.
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
    """Whether the cases are pictures, which carry no patient."""

    @property
    def regions(self) -> tuple[str, ...]:
        """The tumor's regions that the network answers."""
        return tuple(self.segmented[0].regions) if self.segmented else ()


def evaluate(
    model: Model,
    folders: Sequence[Path],
    settings: Settings | None = None,
    *,
    patients: Mapping[str, str] | None = None,
    report: Report | None = None,
) -> Evaluation:
    """Measure a network on cases with truth, each on the patient's own grid.

    Parameters
    ----------
    model
        A segmenter of tumors, or a classifier of a grade.
    folders
        The cases.
    settings
        How it is asked.
    patients
        Case name to patient, where one has several cases; a case is its own patient otherwise.
    report
        Told of progress.

    Raises
    ------
    ModelError
        If the network segments something else than tumors.
    CaseError
        If a case cannot be read, or none of them counts.
    """
    asked = settings or Settings()
    if asked.smallest_enhancement_mm3 is None:
        own = model.card.smallest_enhancement_mm3
        asked = dataclasses.replace(asked, smallest_enhancement_mm3=own)
    used = _asked(model, asked)
    segments = model.card.task == "segmentation"
    measure = _segment if segments else _grade
    names = patients or {}
    found: list[SegmentedCase | GradedCase] = []
    left_out: dict[str, str] = {}
    kinds: list[str] = []
    for number, folder in enumerate(folders):
        if report is not None:
            report("Evaluating", number, len(folders))
        case = _read(model, folder)
        patient = names.get(case_name(folder)) or patient_id(case.name)
        kinds.append(_kind(folder, case))
        measured = measure(used, case, patient, asked)
        if isinstance(measured, str):
            left_out[case.name] = measured
        else:
            found.append(measured)
    if report is not None:
        report("Evaluating", len(folders), len(folders))
    if not found:
        first = next(iter(left_out.items()), ("", "there is no case"))
        raise CaseError(f"no case can be counted; {first[0]}: {first[1]}")
    return Evaluation(
        describe_model(model),
        model.card.task,
        () if segments else tuple(model.card.classes),
        " and ".join(dict.fromkeys(kinds)),
        asked,
        tuple(each for each in found if isinstance(each, SegmentedCase)),
        tuple(each for each in found if isinstance(each, GradedCase)),
        left_out,
        pictures=all(map(is_picture, folders)),
    )


def case_name(path: Path) -> str:
    """Return how a split names a case folder or a picture."""
    return picture_name(path) if is_picture(path) else name_of_folder(path)


def _read(model: Model, folder: Path) -> Case:
    if is_picture(folder):
        return read_picture(folder, model.card.preprocessing["size"])
    needed = tuple(dict.fromkeys(model.card.modalities))
    return read_case(folder, modalities=needed)


def _kind(folder: Path, case: Case) -> str:
    if is_picture(folder):
        return f"pictures of {folder.parent.parent.name}"
    above = [*folder.parents][:2]
    synthetic = any((place / TRUTH_FOLDER).is_dir() for place in above)
    return f"synthetic {case.layout.name}" if synthetic else case.layout.name


def _asked(model: Model, settings: Settings) -> Model:
    """Return the network as it is asked."""
    after = {"smallest_enhancement_mm3": settings.smallest_enhancement_mm3 or 0.0}
    model = dataclasses.replace(model, card=model.card.replace(postprocessing=after))
    if not settings.flips:
        return model
    network = Mirrored(model.network, model.card.activation, model.output_key)
    return dataclasses.replace(model, network=network, output_key=None)


def _segment(model: Model, case: Case, patient: str, settings: Settings) -> SegmentedCase | str:
    if case.truth is None:
        return "has no truth to compare with"
    answer = predict(model, case, device=settings.device)
    if not answer.of_tumors:
        raise ModelError(
            f"{model.card.name}: segments {', '.join(answer.classes[1:])}, which the truth of "
            "brain-tumor cases does not know; evaluate takes segmenters of tumors"
        )
    labels = answer.labels
    if labels is None:
        raise ModelError(f"{model.card.name}: gives no labels, though its card says segmentation")
    voxel_ml = float(np.prod(case.spacing)) / 1000
    regions = {}
    for name in answer.regions:
        found, true = region(labels, name), region(case.truth, name)
        regions[name] = Overlap(
            dice(found, true),
            hausdorff95(found, true, case.spacing),
            float(found.sum()) * voxel_ml,
            float(true.sum()) * voxel_ml,
        )
    return SegmentedCase(case.name, patient, regions)


def _grade(model: Model, case: Case, patient: str, settings: Settings) -> GradedCase | str:
    classes = list(model.card.classes)
    if case.label is None:
        return "has no grade"
    if case.label not in classes:
        return f"is {case.label}, the network knows {', '.join(classes)}"
    if case.category is not None:
        chosen = [0]
    elif case.truth is None:
        return "has no truth to choose slices through the tumor by"
    else:
        chosen = tumor_slices(case, settings.slices)
    if not chosen:
        return "has no tumor to choose slices by"
    rows = [_chances(model, case, z, classes, settings) for z in chosen]
    return GradedCase(
        case.name, patient, classes.index(case.label), tuple(map(str, chosen)), np.array(rows)
    )


def _chances(
    model: Model, case: Case, slice_index: int, classes: Sequence[str], settings: Settings
) -> list[float]:
    answer = predict(model, case, slice_index=slice_index, device=settings.device)
    return [answer.probabilities[name] for name in classes]


def cases_of(
    cohort: Path, members: Mapping[str, str] | None, *, pictures: bool = False
) -> Iterator[Path]:
    """Yield a cohort's case folders, or its pictures; with ``members``, only those named there.

    Raises
    ------
    CaseError
        If a named case is not there, or two have the same name.
    """
    folders: dict[str, Path] = {}
    for folder in find_pictures(cohort) if pictures else find_cases(cohort):
        name = case_name(folder)
        if name in folders:
            raise CaseError(
                f"{cohort}: {folders[name]} and {folder} are both called {name}, and figures go by "
                "name: rename them so that each has its own"
            )
        folders[name] = folder
    if members is None:
        yield from folders.values()
        return
    for name in members:
        if name not in folders:
            raise CaseError(f"{cohort}: holds no case {name}, which the split names")
        yield folders[name]
