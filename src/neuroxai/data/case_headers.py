"""Check of a case's headers and grids, without its voxels and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroxai.core.errors import CaseError
from neuroxai.data.case_files import CaseFiles, reference_modality
from neuroxai.data.grid import reorient_to
from neuroxai.data.nifti import read_nifti_header


def check_headers(
    case: CaseFiles, masks: Sequence[Path] = (), resample_to: str | None = None
) -> None:
    """Validate the header of every file, and that all files are on one grid.

    Parameters
    ----------
    case
        The files of the case.
    masks
        Other files that must be on that grid.
    resample_to
        Modality whose grid is that of the case; only masks must be on it. By default, it is the
        first one, and all files must be on its grid.

    Raises
    ------
    CaseError
        If a file cannot be read, is not NIfTI, has an invalid header, or is on another grid.

    Examples
    --------
    >>> import tempfile
    >>> from neuroxai.data.case_files import locate_case
    >>> from neuroxai.data.nifti import write_nifti
    >>> folder = tempfile.mkdtemp()
    >>> _ = write_nifti(f"{folder}/t1.nii.gz", np.zeros((2, 3, 4), np.float32), np.eye(4))
    >>> check_headers(locate_case(folder, modalities=["T1"]))
    """
    files = (*case.files.values(), *masks)
    headers = {str(file): read_nifti_header(file) for file in files}
    first_file = str(case.files[reference_modality(case, resample_to)])
    first = headers[first_file]
    fixed = headers if resample_to is None else {str(mask): headers[str(mask)] for mask in masks}
    for file, header in fixed.items():
        # A view of a single value has the shape of the image, but not its size in memory.
        image = np.broadcast_to(np.uint8(0), header.shape)
        reorient_to(first.shape, first.affine, image, header.affine, (first_file, file))


def check_mask_file(path: Path) -> None:
    """Raise if a mask does not exist, or its header is invalid; its voxels are not read.

    Raises
    ------
    CaseError
        If the file cannot be used.
    """
    if not path.is_file():
        raise CaseError(f"{path}: no such file, expected a mask on the grid of the scan")
    read_nifti_header(path)
