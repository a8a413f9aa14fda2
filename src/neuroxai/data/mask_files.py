"""User-supplied mask files: one of a case, or one per case and mask of a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, TargetError
from neuroxai.data.case import Case
from neuroxai.data.case_headers import check_mask_file
from neuroxai.data.case_labels import read_case_labels
from neuroxai.data.grid import reorient_to
from neuroxai.data.nifti import Volume, read_nifti

PLACEHOLDER = "{case}"
"""Replaced by the case name in a path."""


_ROUNDING = 1e-3
"""Distance from an integer that is rounding of a file with a scaling in its header."""


def read_mask(path: Path, case: Case) -> Volume[np.float32]:
    """Read a mask onto the grid of a case, ``(I, J, K)``, whatever its orientation.

    Values are weights in [0, 1].

    Raises
    ------
    CaseError
        If the file is missing or damaged, or has a different grid.
    TargetError
        If it is a label file.
    """
    check_mask_file(path)
    found = read_nifti(path, allow_constant=True)
    names = (next((s.path for s in case.sources.values()), case.name), str(path))
    data = reorient_to(case.shape, case.affine, found.data, found.affine, names)
    rounded = np.rint(data)
    values = np.where(np.abs(data - rounded) <= _ROUNDING, rounded, data)
    labels = np.unique(values)
    if labels[-1] > 1 and (labels == np.rint(labels)).all():
        shown = ", ".join(f"{label:g}" for label in labels[:6])
        raise TargetError(
            f"{path}: is a label file with the values {shown}, expected a mask of 0 and 1 or "
            f"weights in [0, 1]: write the label of interest to its own file, for example "
            f"mask.nii.gz with labels == {labels[-1]:g}"
        )
    return Volume(
        np.ascontiguousarray(values, np.float32), case.affine, found.sha256, str(path),
        found.warnings,
    )  # fmt: skip


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
