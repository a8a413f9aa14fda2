"""What a network says of a case, on the patient's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.accuracy.segmentation import dice
from neuroxai.core.errors import ModelError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.data.case import CLASSES, REGIONS, Case, region
from neuroxai.data.label_values import encode_labels
from neuroxai.data.nifti import write_nifti
from neuroxai.data.placement import Placement
from neuroxai.data.postprocessing import relabel_small_enhancement
from neuroxai.files.folder import describe_dataset
from neuroxai.files.names import slug


@dataclass(frozen=True, eq=False)
class Prediction:
    """A network's answer.

    Attributes
    ----------
    case, placement
        The study and the way back to its grid.
    probabilities
        Class name to probability, for a classifier; empty for a segmenter.
    labels
        ``(I, J, K)`` indices into ``classes``, for a segmenter; else None.
    classes
        What the indices mean: those of brain tumors, or a network's own with background first.
    warnings
        What is odd but safe to use, and what memory made necessary.
    regions
        The tumor's regions that the network can answer.
    """

    case: Case
    placement: Placement
    probabilities: Mapping[str, float]
    labels: NDArray[np.uint8] | None
    classes: tuple[str, ...] = CLASSES
    warnings: tuple[str, ...] = ()
    regions: tuple[str, ...] = tuple(REGIONS)

    @property
    def of_tumors(self) -> bool:
        """Whether the labels are those of brain tumors, which have regions and a file layout."""
        return self.classes == CLASSES

    @property
    def label(self) -> str | None:
        """A classifier's most likely class."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default=None)

    def volumes_ml(self) -> dict[str, float]:
        """Return the volumes of the predicted regions, or of a network's own classes, in ml."""
        if self.labels is None:
            return {}
        voxel_ml = float(np.prod(self.case.spacing)) / 1000
        if not self.of_tumors:
            counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
            named = zip(self.classes[1:], counts[1:].tolist(), strict=True)
            return {name: count * voxel_ml for name, count in named}
        return {name: float(region(self.labels, name).sum()) * voxel_ml for name in self.regions}

    def dice(self) -> dict[str, float]:
        """Return the Dice of every region that was answered with the truth, if the case has one.

        Both empty counts as 1.
        """
        if self.labels is None or self.case.truth is None or not self.of_tumors:
            return {}
        return {
            name: dice(region(self.labels, name), region(self.case.truth, name))
            for name in self.regions
        }

    def without_small_enhancement(self, least_mm3: float) -> Prediction:
        """Return the answer with enhancement of less than ``least_mm3`` in all called necrosis.

        A warning says so; see :mod:`neuroxai.data.postprocessing`.
        """
        if self.labels is None or not self.of_tumors:
            return self
        voxel_mm3 = float(np.prod(self.case.spacing))
        labels, volume = relabel_small_enhancement(self.labels, voxel_mm3, least_mm3)
        if not volume:
            return self
        note = (
            f"{self.case.name}: enhancing tumor of {volume:.0f} mm³ in all is called necrosis, "
            f"as of all below {least_mm3:g} mm³"
        )
        return replace(self, labels=labels, warnings=(*self.warnings, note))

    def save(self, out: str | Path) -> Path | None:
        """Write ``CASE_dseg.nii.gz`` in the label numbers of the case's own layout.

        A network's own classes keep their numbers, 0 is background.

        Returns
        -------
        Path or None
            None for a classifier, whose answer has no voxels.
        """
        if self.labels is None:
            return None
        folder = Path(out)
        describe_dataset(folder)
        return write_nifti(
            folder / f"{slug(self.case.name)}_dseg.nii.gz",
            encode_labels(self.labels, self.case.layout) if self.of_tumors else self.labels,
            self.case.affine,
            description=f"Predicted labels, {self._numbering}; {NOT_FOR_CLINICAL_USE}",
        )

    def describe(self) -> dict[str, Any]:
        """Return the answer in numbers, ready for JSON."""
        if self.labels is None:
            return {"label": self.label, "probabilities": dict(self.probabilities)}
        own = {name: number for number, name in enumerate(self.classes)}
        return {
            "labels": dict(self.case.layout.labels) if self.of_tumors else own,
            "layout": self._numbering,
            "volumes_ml": self.volumes_ml(),
            "dice": self.dice(),
        }

    @property
    def _numbering(self) -> str:
        return self.case.layout.name if self.of_tumors else "the network's own"


def read_output(output: Tensor, outputs: Outputs, case: Case, placement: Placement) -> Prediction:
    """Turn a model output ``(1, K)`` or ``(1, K, *S)`` into an answer about the case.

    Raises
    ------
    ModelError
        If the output is not finite: whatever is largest in it would pass for an answer.
    """
    if not bool(torch.isfinite(output).all()):
        raise ModelError(
            f"{case.name}: the network answers with NaN or infinite values: check its weights and "
            "the input's scale"
        )
    if output.dim() == 2:
        chances = outputs.probabilities(output)[0].tolist()
        return Prediction(case, placement, dict(zip(outputs.names, chances, strict=True)), None)
    if placement.resampling is not None:
        # As nnU-Net: the outputs are brought to the patient's grid, and decided on there.
        values = torch.from_numpy(placement.to_patient(output[0].detach().cpu().numpy()))
        inside = placement.to_patient(np.ones(placement.grid, np.uint8))
        classes, labels = _labels(values, outputs)
        on_patient = labels.numpy() * inside
    else:
        classes, labels = _labels(output[0].detach(), outputs)
        on_patient = placement.to_patient(labels.cpu().numpy())
    answer = Prediction(case, placement, {}, on_patient, classes, regions=_answered(outputs))
    if classes != CLASSES and outputs.activation == "sigmoid":
        overlap = (
            f"{case.name}: the network's classes overlap; where it calls a voxel several of them, "
            "the label file has the strongest"
        )
        answer = replace(answer, warnings=(*answer.warnings, overlap))
    return answer.without_small_enhancement(outputs.smallest_enhancement_mm3)


def _labels(output: Tensor, outputs: Outputs) -> tuple[tuple[str, ...], Tensor]:
    """Return classes, and indices into them ``(*S)`` uint8, of an output ``(K, *S)``.

    Of exclusive classes the strongest counts. Of regions of a tumor, which overlap, every voxel
    above one half, the inner ones last: what is WT but not TC is edema, what is TC but not ET is
    necrosis, as BraTS numbers them, and the cavity of a resection lies over all. Of other
    overlapping classes the strongest above one half.
    """
    overlapping = outputs.activation != "softmax"
    if overlapping and set(outputs.names) <= {*REGIONS, "RC"} and {*outputs.names} & {*REGIONS}:
        return CLASSES, _nested(output, outputs)
    strongest = output.max(dim=0)
    sure = torch.ones_like(strongest.indices, dtype=torch.bool)
    if outputs.activation == "sigmoid":
        sure = outputs.probabilities(strongest.values[None, None])[0, 0] > 0.5
    classes: tuple[str, ...] = CLASSES
    if not set(outputs.names) <= set(CLASSES):
        classes = (CLASSES[0], *(name for name in outputs.names if name != CLASSES[0]))
    numbers = [classes.index(name) for name in outputs.names]
    if len(classes) > np.iinfo(np.uint8).max:
        raise ModelError(f"the network has {len(classes)} classes, a label file holds 255 at most")
    indices = torch.tensor(numbers, dtype=torch.uint8, device=output.device)
    return classes, torch.where(sure, indices[strongest.indices], 0)


def _nested(output: Tensor, outputs: Outputs) -> Tensor:
    likely = outputs.probabilities(output[None])[0] > 0.5
    labels = torch.zeros(output.shape[1:], dtype=torch.uint8, device=output.device)
    for name, rest in (("WT", "ED"), ("TC", "NCR"), ("ET", "ET"), ("RC", "RC")):
        if name in outputs.names:
            labels[likely[outputs.names.index(name)]] = CLASSES.index(rest)
    return labels


def _answered(outputs: Outputs) -> tuple[str, ...]:
    """Return the tumor's regions that a network can tell.

    Those it declares, those that are outputs themselves, and those whose every class is one.
    """
    known = {*outputs.names, *outputs.regions}
    return tuple(name for name, them in REGIONS.items() if name in known or {*them} <= known)
