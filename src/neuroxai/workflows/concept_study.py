"""A case with its concepts as a network sees them, opened the same way every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError
from neuroxai.core.target.outputs import Outputs
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.data.concepts import concept_masks
from neuroxai.data.preparation import Prepared
from neuroxai.data.tissues import case_tissues
from neuroxai.models.model import Model
from neuroxai.workflows.explain import outputs_of, prepare

Own = Callable[[Case], Mapping[str, NDArray[np.generic]]]
"""A user's own masks of a case, by name."""

MARGIN = 4
"""Voxels around the brain that still count."""


@dataclass(frozen=True, eq=False)
class ConceptStudy:
    """One case, ready for a network."""

    case: Case
    prepared: Prepared
    x: Tensor
    masks: dict[str, Tensor]
    around: tuple[slice, ...]
    """The box that holds the brain, and a margin."""
    tissues_from: str | None


class ConceptStudies:
    """Opens cases the same way every time."""

    def __init__(
        self, model: Model, network: nn.Module, own: Own | None, tissues: bool, device: str
    ) -> None:
        self.model, self.network = model, network
        self.outputs: Outputs = outputs_of(model)
        self._own, self._tissues, self._device = own, tissues, device

    def open(self, each: Case | Path) -> ConceptStudy:
        """Return a study, or the one in a folder, on the network's grid."""
        case = each if isinstance(each, Case) else self._read(each)
        prepared = prepare(self.model, case, None, self._device, at_once=True)
        tissues, source = case_tissues(case) if self._tissues else (None, None)
        own = self._own(case) if self._own else None
        known = concept_masks(case, tissues=tissues, user_masks=own)
        masks = {
            name: torch.from_numpy(prepared.placement.to_network(mask.astype(np.uint8)) > 0)
            for name, mask in known.items()
        }
        parameter = next(self.network.parameters())
        x = prepared.x.to(parameter.device)
        around = bounding_box(masks["brain"].numpy(), MARGIN)
        return ConceptStudy(case, prepared, x, masks, around, source)

    def each(
        self, cases: Sequence[Case | Path], first: Sequence[ConceptStudy]
    ) -> Iterator[ConceptStudy]:
        """Yield the cases' studies in turn; the first ones have been opened already."""
        yield from first[: len(cases)]
        yield from map(self.open, cases[len(first) :])

    def _read(self, folder: Path) -> Case:
        return read_case(folder, modalities=tuple(dict.fromkeys(self.model.card.modalities)))


def same_concepts(study: ConceptStudy, concepts: Sequence[str]) -> dict[str, Tensor]:
    """Return the masks of the concepts; a case whose layout knows no cavity has none, others must.

    All but the cavity must be known of every case.
    """
    masks = dict(study.masks)
    for name in concepts:
        if name in masks:
            continue
        if name != "RC":
            raise CaseError(
                f"{study.case.name}: the concept {name!r} is not known of this case, but of the "
                "first; dissect cases that know the same concepts"
            )
        masks[name] = torch.zeros_like(masks["brain"])
    return {name: masks[name] for name in concepts}
