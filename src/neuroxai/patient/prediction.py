"""A network's prediction for a case, on the patient's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.accuracy.segmentation import dice
from neuroxai.core.errors import ModelError, TargetError, suggestion
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE, standard_class
from neuroxai.data.case import CLASSES, REGIONS, Case, region
from neuroxai.data.label_values import encode_labels
from neuroxai.data.nifti import write_nifti
from neuroxai.data.placement import Placement
from neuroxai.data.postprocessing import relabel_small_enhancement
from neuroxai.files.folder import describe_dataset
from neuroxai.files.names import bids_stem
from neuroxai.patient.label_table import write_label_tables
from neuroxai.patient.lesions import Lesions
from neuroxai.patient.predicted_regions import (
    overlapping_regions,
    own_names,
    predicted_regions,
)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of a segmenter or a classifier.

    Attributes
    ----------
    case, placement
        The study, and the mapping to the network's grid.
    probabilities
        Class name to probability, for a classifier; empty for a segmenter.
    labels
        ``(I, J, K)`` indices into ``classes``, for a segmenter; else None.
    classes
        The classes of brain tumors, or the network's own classes with the background first.
    warnings
        Warnings about the prediction, one sentence each.
    regions
        The tumor's regions that the network predicts, and their ``classes``.
    overlapping
        Masks ``(I, J, K)`` of the regions of classes that overlap, which labels cannot represent.
    lesions
        The lesions of each predicted region; None for a classifier.
    """

    case: Case
    placement: Placement
    probabilities: Mapping[str, float]
    labels: NDArray[np.uint8] | None
    classes: tuple[str, ...] = CLASSES
    warnings: tuple[str, ...] = ()
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(REGIONS))
    overlapping: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    lesions: Lesions | None = None

    @property
    def of_tumors(self) -> bool:
        """Whether the classes are those of brain tumors, which have regions and a file layout."""
        return self.classes == CLASSES

    @property
    def label(self) -> str | None:
        """The most likely class of a classifier."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default=None)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the mask ``(I, J, K)`` of one of ``regions``.

        Raises
        ------
        TargetError
            If the network does not predict the region.
        """
        if self.labels is None or name not in self.regions:
            known = suggestion(name, self.regions) if self.regions else "it predicts no regions"
            raise TargetError(f"{self.case.name}: the network does not predict {name!r}: {known}")
        if name in self.overlapping:
            return self.overlapping[name]
        return np.isin(self.labels, [self.classes.index(member) for member in self.regions[name]])

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Return the mask ``(I, J, K)`` of each class but the background, and of each region."""
        if self.labels is None:
            return {}
        own = {name: self.labels == i for i, name in enumerate(self.classes) if i}
        return own | {name: self.mask(name) for name in self.regions}

    def volumes_ml(self) -> dict[str, float]:
        """Return the volumes in ml of the predicted regions, and of the network's own classes."""
        if self.labels is None:
            return {}
        voxel_ml = float(np.prod(self.case.spacing)) / 1000
        volumes = {name: float(self.mask(name).sum()) * voxel_ml for name in self.regions}
        if self.of_tumors:
            return volumes
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        named = zip(self.classes[1:], counts[1:].tolist(), strict=True)
        return volumes | {name: n * voxel_ml for name, n in named if name not in volumes}

    def dice(self) -> dict[str, float]:
        """Return the Dice of each predicted region with the truth; empty without a truth.

        The Dice of two empty regions is 1.
        """
        if self.labels is None or self.case.truth is None:
            return {}
        truth = self.case.truth
        return {name: dice(self.mask(name), region(truth, name)) for name in self.regions}

    def without_small_enhancement(self, least_mm3: float) -> Prediction:
        """Return the prediction with a total enhancement below ``least_mm3`` as necrosis.

        A warning reports the relabeled volume; see :mod:`neuroxai.data.postprocessing`.
        """
        if self.labels is None or not self.of_tumors:
            return self
        voxel_mm3 = float(np.prod(self.case.spacing))
        labels, volume = relabel_small_enhancement(self.labels, voxel_mm3, least_mm3)
        if not volume:
            return self
        note = (
            f"{self.case.name}: {volume:.0f} mm³ of enhancing tumor were relabeled as necrosis "
            f"(the minimum is {least_mm3:g} mm³)"
        )
        return replace(self, labels=labels, warnings=(*self.warnings, note))

    def save(self, out: str | Path) -> Path | None:
        """Write ``sub-CASE_dseg.nii.gz`` with the label numbers of the case's own layout.

        Tables with the labels' names and colors are written next to it.

        Classes that are not those of tumors are numbered as in ``classes``.

        Returns
        -------
        Path or None
            None for a classifier, which predicts no labels.
        """
        if self.labels is None:
            return None
        folder = Path(out)
        describe_dataset(folder)
        path = write_nifti(
            folder / f"{bids_stem(self.case.name, 'dseg')}.nii.gz",
            encode_labels(self.labels, self.case.layout) if self.of_tumors else self.labels,
            self.case.affine,
            description=f"Predicted labels, {self._numbering}; {NOT_FOR_CLINICAL_USE}",
        )
        write_label_tables(path, self._numbers)
        return path

    @property
    def _numbers(self) -> dict[str, int]:
        """Class name to number in the label file."""
        if self.of_tumors:
            return dict(self.case.layout.labels)
        return {name: number for number, name in enumerate(self.classes)}

    def describe(self) -> dict[str, Any]:
        """Return labels and volumes, or probabilities, ready for JSON."""
        if self.labels is None:
            return {"label": self.label, "probabilities": dict(self.probabilities)}
        return {
            "labels": self._numbers,
            "layout": self._numbering,
            "volumes_ml": self.volumes_ml(),
            "dice": self.dice(),
            "lesions": None if self.lesions is None else self.lesions.describe(),
        }

    @property
    def _numbering(self) -> str:
        return self.case.layout.name if self.of_tumors else "the network's own"


def check_output_grid(output: Tensor, grid: tuple[int, ...], name: str, outputs: Outputs) -> None:
    """Raise if a segmenter's output ``(B, K, *S)`` has no known place on its input's grid.

    Raises
    ------
    ModelError
        If the output is larger, or smaller and it is unknown which voxels of the input it is of.
    """
    got = tuple(output.shape[2:])
    if output.dim() > 2 and got != grid and outputs.covered(output) is None:
        raise ModelError(
            f"{name}: the network's output has the grid {got}, expected that of its input, {grid}, "
            "or a part of it at a place that kernels and crops determine: pad its convolutions, or "
            "wrap it in a module that pads or resamples the output to the input's grid"
        )


def read_output(output: Tensor, outputs: Outputs, case: Case, placement: Placement) -> Prediction:
    """Convert a network's output to a prediction.

    Parameters
    ----------
    output
        ``(1, K)`` of a classifier, or ``(1, K, *S)`` of a segmenter.
    outputs
        The names of the channels, and their activation.
    case, placement
        The study, and the mapping from its grid to the network's.

    Raises
    ------
    ModelError
        If the output has NaN or infinite values, or a segmenter's is not on the input's grid.
    """
    check_output_grid(output, placement.grid, case.name, outputs)
    if not bool(torch.isfinite(output).all()):
        raise ModelError(
            f"{case.name}: the network's output has NaN or infinite values: check its weights and "
            "the input's scale"
        )
    if output.dim() == 2:
        probabilities = dict(
            zip(outputs.names, outputs.probabilities(output)[0].tolist(), strict=True)
        )
        return Prediction(case, placement, probabilities, None)
    covered, warnings = outputs.covered(output), tuple[str, ...]()
    part = np.ones(placement.grid, np.uint8)
    if covered is not None:
        part, output = covered.mask.numpy().astype(np.uint8), covered.extend(output)
        warnings = (f"{case.name}: {covered.note()}",)
    scores = output[0].detach()
    if placement.resampled:
        # As in nnU-Net, outputs are resampled to the patient's grid before classes are chosen.
        scores = torch.from_numpy(placement.to_patient(scores.cpu().numpy()))
        inside = placement.to_patient(part)

    def on_patient(values: Tensor) -> NDArray[np.uint8]:
        if placement.resampled:
            return values.cpu().numpy() * inside
        return placement.to_patient(values.cpu().numpy() * part)

    classes, labels = _labels(scores, outputs)
    regions = predicted_regions(outputs, classes)
    masks = overlapping_regions(scores, outputs, regions) if classes != CLASSES else {}
    prediction = Prediction(
        case, placement, {}, on_patient(labels), classes, warnings, regions,
        overlapping={name: on_patient(mask.to(torch.uint8)) > 0 for name, mask in masks.items()},
    )  # fmt: skip
    if classes != CLASSES and outputs.activation == "sigmoid":
        overlap = (
            f"{case.name}: the network's classes overlap; where several are predicted, the label "
            f"file has {'the last one' if outputs.label_numbers else 'that of the largest logit'}"
        )
        prediction = replace(prediction, warnings=(*prediction.warnings, overlap))
    return prediction.without_small_enhancement(outputs.smallest_enhancement_mm3)


def _labels(output: Tensor, outputs: Outputs) -> tuple[tuple[str, ...], Tensor]:
    """Return classes, and indices into them ``(*S)`` uint8, of an output ``(K, *S)``.

    Among exclusive classes, the largest logit wins. Regions of a tumor overlap and are thresholded
    at a probability of one half: WT without TC is edema, TC without ET is necrosis, as in BraTS,
    and a resection cavity overrides them. Among other overlapping classes, the largest logit wins
    if its probability is above one half.
    """
    overlapping = outputs.activation != "softmax"
    names = [standard_class(name) for name in outputs.names]
    if overlapping and {*names} <= {*REGIONS, "RC"} and {*names} & {*REGIONS}:
        return CLASSES, _labels_of_regions(output, outputs)
    if overlapping and sorted(outputs.label_numbers) == list(range(1, len(names) + 1)):
        return _drawn_in_order(output, outputs)
    strongest = output.max(dim=0)
    predicted = torch.ones_like(strongest.indices, dtype=torch.bool)
    if outputs.activation == "sigmoid":
        predicted = outputs.probabilities(strongest.values[None, None])[0, 0] > 0.5
    classes: tuple[str, ...] = CLASSES
    if not {*names} <= {*CLASSES}:
        names = own_names(outputs.names)
        classes = (CLASSES[0], *(name for name in names if name != CLASSES[0]))
    numbers = [classes.index(name) for name in names]
    if len(classes) > np.iinfo(np.uint8).max:
        raise ModelError(
            f"the network has {len(classes)} classes, but a label file holds at most 255"
        )
    indices = torch.tensor(numbers, dtype=torch.uint8, device=output.device)
    return classes, torch.where(predicted, indices[strongest.indices], 0)


def _drawn_in_order(output: Tensor, outputs: Outputs) -> tuple[tuple[str, ...], Tensor]:
    """Return classes by number, and labels ``(*S)`` where later classes overwrite earlier ones."""
    predicted = outputs.probabilities(output[None])[0] > 0.5
    labels = torch.zeros(output.shape[1:], dtype=torch.uint8, device=output.device)
    for mask, number in zip(predicted, outputs.label_numbers, strict=True):
        labels[mask] = number
    named = dict(zip(outputs.label_numbers, own_names(outputs.names), strict=True))
    return (CLASSES[0], *(named[number] for number in sorted(named))), labels


def _labels_of_regions(output: Tensor, outputs: Outputs) -> Tensor:
    """Return indices into ``CLASSES`` ``(*S)`` of overlapping regions, the inner ones last."""
    predicted = outputs.probabilities(output[None])[0] > 0.5
    labels = torch.zeros(output.shape[1:], dtype=torch.uint8, device=output.device)
    names = [standard_class(name) for name in outputs.names]
    for name, rest in (("WT", "ED"), ("TC", "NCR"), ("ET", "ET"), ("RC", "RC")):
        if name in names:
            labels[predicted[names.index(name)]] = CLASSES.index(rest)
    return labels
