"""A case with its concept masks on the network's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.data.concepts import concept_masks
from neuroxai.data.tissues import case_tissues
from neuroxai.models.model import Model
from neuroxai.workflows.session import Session, open

UserMasks = Callable[[Case], Mapping[str, NDArray[np.generic]]]
"""Returns a user's own masks of a case, by name."""

MARGIN = 4
"""Voxels around the brain that are scored with it, so that its edge counts."""


@dataclass(frozen=True, eq=False)
class ConceptStudy:
    """One case with its concepts.

    Attributes
    ----------
    session
        The model on the case.
    x
        The network's input for a pass over the whole image, ``(1, C, *S)``.
    masks
        Concept name to ``(*S)`` bool.
    around
        The box of the brain and a margin.
    tissues_from
        The source of the tissues; None if there are none.
    """

    session: Session
    x: Tensor
    masks: dict[str, Tensor]
    around: tuple[slice, ...]
    tissues_from: str | None

    @property
    def case(self) -> Case:
        """The study."""
        return self.session.case


class ConceptStudies:
    """Opens cases for dissection.

    Parameters
    ----------
    model
        A loaded model.
    user_masks
        Returns a user's own masks of a case.
    tissues
        Whether CSF, GM and WM are among the concepts.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    layout
        Layout of the cases' label values; detected from the file names by default.
    resample_to
        Modality whose grid files on other grids are resampled to; by default they are refused.
    """

    def __init__(
        self,
        model: Model,
        user_masks: UserMasks | None,
        tissues: bool,
        device: str,
        layout: str | None = None,
        resample_to: str | None = None,
    ) -> None:
        self.model = model
        self._layout, self._resample_to = layout, resample_to
        self._user_masks, self._tissues, self._device = user_masks, tissues, device

    def open(self, case: Case | Path) -> ConceptStudy:
        """Return the study of a case, or of a case folder."""
        case = case if isinstance(case, Case) else self._read(case)
        session = open(self.model, case, device=self._device)
        placement = session.whole.placement
        tissues, source = case_tissues(case) if self._tissues else (None, None)
        own = self._user_masks(case) if self._user_masks else None
        masks = {
            name: torch.from_numpy(placement.to_network(mask.astype(np.uint8)) > 0)
            for name, mask in concept_masks(case, tissues=tissues, user_masks=own).items()
        }
        around = bounding_box(masks["brain"].numpy(), MARGIN)
        x = session.whole.x.to(session.x.device)
        return ConceptStudy(session, x, masks, around, source)

    def each(
        self, cases: Sequence[Case | Path], first: Sequence[ConceptStudy]
    ) -> Iterator[ConceptStudy]:
        """Yield the studies of the cases; the ``first`` ones are open already."""
        yield from first[: len(cases)]
        yield from map(self.open, cases[len(first) :])

    def _read(self, folder: Path) -> Case:
        names = tuple(dict.fromkeys(self.model.card.modalities))
        return read_case(
            folder, modalities=names, layout=self._layout, resample_to=self._resample_to
        )


def same_concepts(study: ConceptStudy, concepts: Sequence[str]) -> dict[str, Tensor]:
    """Return the masks of the given concepts.

    A case whose layout has no resection cavity gets an empty mask of it.

    Raises
    ------
    CaseError
        If another concept is missing.
    """
    masks = dict(study.masks)
    for name in concepts:
        if name in masks:
            continue
        if name != "RC":
            raise CaseError(
                f"{study.case.name}: the concept {name!r} of the first case is missing in this "
                "one; dissect cases that have the same concepts"
            )
        masks[name] = torch.zeros_like(masks["brain"])
    return {name: masks[name] for name in concepts}
