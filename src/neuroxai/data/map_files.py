"""Maps in files, of this program or of another tool, on the grid of a case."""

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import Case
from neuroxai.data.grid import reorient_to
from neuroxai.data.nifti import read_nifti, read_nifti_header


def read_map(path: str | os.PathLike[str], case: Case, channels: int) -> NDArray[np.float32]:
    """Read a map onto the grid of a case, whatever the orientation of the file.

    Parameters
    ----------
    path
        A 3D file, one map for all modalities; or a 4D file with one volume for each modality, in
        the network's order.
    case
        The case whose grid the map must be on.
    channels
        Number of the network's modalities.

    Returns
    -------
    ndarray
        ``(1, I, J, K)`` or ``(C, I, J, K)``.

    Raises
    ------
    CaseError
        If the file is missing or damaged, or has another grid or number of volumes.
    """
    name = os.fspath(path)
    header = read_nifti_header(f"{name}[0]")
    volumes = 1 + header.after // (math.prod(header.shape) * header.dtype.itemsize)
    if volumes not in (1, channels):
        raise CaseError(
            f"{name}: the map has {volumes} volumes, expected 1, or {channels}, one for each of "
            "the network's modalities in its order"
        )
    scan = next((source.path for source in case.sources.values()), case.name)
    found = [read_nifti(f"{name}[{k}]", allow_constant=True) for k in range(volumes)]
    return np.stack(
        [
            np.asarray(reorient_to(case.shape, case.affine, v.data, v.affine, (scan, name)))
            for v in found
        ]
    )
