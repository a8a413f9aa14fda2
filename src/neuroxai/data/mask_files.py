"""Masks that a user keeps beside a cohort, one file for each case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import Case
from neuroxai.data.case_labels import read_case_labels

PLACE = "{case}"
"""Stands for a case's name in a path."""


@dataclass(frozen=True)
class MaskFiles:
    """Finds and reads the masks of a case; what is not zero belongs to the mask.

    Attributes
    ----------
    paths
        Mask to its file, with ``{case}`` in place of the case's name.

    Examples
    --------
    >>> MaskFiles({"bleed": "masks/{case}_bleed.nii.gz"}).path("bleed", "P1").as_posix()
    'masks/P1_bleed.nii.gz'
    """

    paths: Mapping[str, str]

    def path(self, mask: str, case: str) -> Path:
        """Return the file that holds a case's mask."""
        return Path(self.paths[mask].replace(PLACE, case))

    def __call__(self, case: Case) -> dict[str, NDArray[np.bool_]]:
        """Return every mask of a case on its own grid, ``(I, J, K)``.

        Raises
        ------
        CaseError
            If a file is missing, damaged, holds no whole numbers, or lies elsewhere in the body.
        """
        return {name: self._read(name, case) for name in self.paths}

    def _read(self, mask: str, case: Case) -> NDArray[np.bool_]:
        path = self.path(mask, case.name)
        if not path.is_file():
            raise CaseError(
                f"{path}: no such file, the mask {mask!r} of {case.name} was expected there; "
                f"write {PLACE} in the path where the case's name stands"
            )
        inside: NDArray[np.bool_] = read_case_labels(path, case) != 0
        return inside
