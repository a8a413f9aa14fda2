"""User-supplied mask files of a cohort, one file per case and mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import Case
from neuroxai.data.case_labels import read_case_labels

PLACEHOLDER = "{case}"
"""Replaced by the case name in a path."""


@dataclass(frozen=True)
class MaskFiles:
    """Reader of the mask files of a cohort; nonzero voxels belong to a mask.

    Attributes
    ----------
    paths
        Mask name to path, with the placeholder ``{case}`` for the case name.

    Examples
    --------
    >>> MaskFiles({"bleed": "masks/{case}_bleed.nii.gz"}).path("bleed", "P1").as_posix()
    'masks/P1_bleed.nii.gz'
    """

    paths: Mapping[str, str]

    def path(self, mask: str, case: str) -> Path:
        """Return the path of a mask of a case."""
        return Path(self.paths[mask].replace(PLACEHOLDER, case))

    def __call__(self, case: Case) -> dict[str, NDArray[np.bool_]]:
        """Return all masks of a case, ``(I, J, K)`` on its grid.

        Raises
        ------
        CaseError
            If a file is missing or damaged, has non-integer values, or has a different grid.
        """
        return {name: self._read(name, case) for name in self.paths}

    def _read(self, mask: str, case: Case) -> NDArray[np.bool_]:
        path = self.path(mask, case.name)
        if not path.is_file():
            raise CaseError(
                f"{path}: no such file, expected the mask {mask!r} of {case.name}; "
                f"use {PLACEHOLDER} in the path for the case name"
            )
        values: NDArray[np.bool_] = read_case_labels(path, case) != 0
        return values
