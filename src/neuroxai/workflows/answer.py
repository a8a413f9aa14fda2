"""A network's answer to a case: its prediction, regions and lesions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from neuroxai.core.target.outputs import Outputs
from neuroxai.data.case import Case
from neuroxai.data.preparation import Prepared
from neuroxai.inspection.chance import ChanceLevel
from neuroxai.patient.lesions import Lesions
from neuroxai.patient.prediction import Prediction, read_output
from neuroxai.patient.regions import Regions
from neuroxai.workflows.question import lesion_targets


@dataclass(frozen=True, eq=False)
class Answer:
    """The network's answer to a case, and the regions it gives."""

    prediction: Prediction
    regions: Regions
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, output: Tensor, outputs: Outputs, case: Case, prepared: Prepared) -> Answer:
        """Return the answer that an output of a prepared case gives."""
        prediction = read_output(output, outputs, case, prepared.placement)
        segments = prediction.labels is not None
        masks = {name: prediction.mask(name) for name in prediction.regions} if segments else {}
        regions = Regions(case, prepared.placement, masks or None)
        if prediction.labels is not None:
            on_scan = prediction.masks()
            lesions = Lesions.read(output, outputs, lesion_targets(outputs), regions, on_scan)
            prediction = dataclasses.replace(prediction, lesions=lesions)
        return cls(prediction, regions)

    def chance_level(
        self, within: Tensor | None, prepared: Prepared, modalities: Sequence[str]
    ) -> ChanceLevel | None:
        """Return the chance level of maps in a place ``(1, *S)``; None if there is no place."""
        if within is None or tuple(within.shape[1:]) != prepared.placement.grid:
            return None
        brain = self.regions.masks["brain"]
        return ChanceLevel(within[0], brain, prepared.x[0], modalities, prepared.background_value)
