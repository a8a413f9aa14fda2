"""Check of a case's headers and grids, without its voxels and without torch."""

from __future__ import annotations

import numpy as np

from neuroxai.data.case_files import CaseFiles
from neuroxai.data.grid import reorient_to
from neuroxai.data.nifti import read_nifti_header


def check_headers(case: CaseFiles) -> None:
    """Validate the header of every file, and that all files are on the grid of the first.

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
    headers = {str(file): read_nifti_header(file) for file in case.files.values()}
    (first_file, first), *others = headers.items()
    for file, header in others:
        # A view of a single value has the shape of the image, but not its size in memory.
        image = np.broadcast_to(np.uint8(0), header.shape)
        reorient_to(first.shape, first.affine, image, header.affine, (first_file, file))
