"""Label files read onto the grid of a case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case import Case
from neuroxai.data.grid import reorient_to
from neuroxai.data.nifti import read_labels


def read_case_labels(path: Path, case: Case) -> NDArray[np.int32]:
    """Read a label file onto the grid of a case, ``(I, J, K)``, whatever its orientation.

    Raises
    ------
    CaseError
        If the file is missing or damaged, has non-integer values, or has a different grid.
    """
    labels = read_labels(path)
    names = (next((s.path for s in case.sources.values()), case.name), labels.path)
    reoriented = reorient_to(case.shape, case.affine, labels.data, labels.affine, names)
    return np.ascontiguousarray(reoriented)
