"""Label files that lie beside a case, read on the case's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case import Case
from neuroxai.data.grid import reorient_to
from neuroxai.data.nifti import read_labels


def read_case_labels(path: Path, case: Case) -> NDArray[np.int32]:
    """Read whole numbers for every voxel of a case, ``(I, J, K)``, however the file is turned.

    Raises
    ------
    CaseError
        If the file is missing, damaged, holds no whole numbers, or lies elsewhere in the body.
    """
    labels = read_labels(path)
    names = (next((s.path for s in case.sources.values()), case.name), labels.path)
    turned = reorient_to(case.shape, case.affine, labels.data, labels.affine, names)
    return np.ascontiguousarray(turned)
