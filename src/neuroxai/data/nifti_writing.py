"""Atomic writing of NIfTI files with reproducible bytes."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError
from neuroxai.data.grid import corner_distance
from neuroxai.files.atomic import atomic_path


def write_nifti(
    path: str | os.PathLike[str],
    data: NDArray[Any],
    affine: NDArray[Any],
    *,
    description: str = "",
    modalities: Sequence[str] | None = None,
    step: float | None = None,
) -> Path:
    """Write a volume ``(I, J, K)`` or ``(I, J, K, C)`` atomically, with reproducible bytes.

    Floating-point values are stored as float32, integers unchanged and booleans as uint8. The
    affine is stored in the sform and, unless it is sheared, in the qform.

    Parameters
    ----------
    path
        File name ending in ``.nii`` or ``.nii.gz``.
    affine
        ``(4, 4)``, voxel index to mm in RAS+ world space.
    description
        Description in the header, cut to 79 bytes.
    modalities
        Names of the C volumes, stored in a header extension.
    step
        Value of one unit of an integer map, stored as ``scl_slope``. The display range
        (``cal_min``, ``cal_max``) is then symmetric around zero.

    Raises
    ------
    OutputError
        If the array cannot be stored as NIfTI or the file cannot be written.

    Examples
    --------
    >>> import nibabel, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "map.nii.gz"
    >>> written = write_nifti(path, np.ones((2, 3, 4), np.float32), np.eye(4), description="map")
    >>> nibabel.load(written).shape
    (2, 3, 4)
    """
    import nibabel as nib

    path = Path(path)
    data, affine = np.asarray(data), np.asarray(affine, dtype=np.float64)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise OutputError(f"{path}: NIfTI files must end in .nii or .nii.gz; rename the file")
    data = _storable(path, data, affine, modalities)
    image_class = nib.Nifti2Image if max(data.shape) > 32767 else nib.Nifti1Image
    image = image_class(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()[:79].decode(errors="ignore").encode()
    if step is not None:
        image.header.set_slope_inter(step, 0)
        top = step * float(np.abs(data.astype(np.int32)).max())
        image.header["cal_min"], image.header["cal_max"] = -top, top
    if modalities is not None:
        text = "modalities: " + ", ".join(modalities)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text.encode()))
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if corner_distance(image.get_qform(), affine, data.shape[:3]) > 1e-3:
        image.set_qform(affine, code=0)
        image.set_sform(affine, code=1)
    blob = image.to_bytes()
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if path.name.lower().endswith(".gz"):
            # No file name and no time stamp, so that equal maps are equal files.
            with gzip.GzipFile("", "wb", compresslevel=2, fileobj=stream, mtime=0) as packed:
                packed.write(blob)
        else:
            stream.write(blob)
    return path


def _storable(
    path: Path, data: NDArray[Any], affine: NDArray[np.float64], modalities: Sequence[str] | None
) -> NDArray[Any]:
    if data.ndim not in (3, 4) or data.size == 0:
        raise OutputError(f"{path}: expected (I, J, K) or (I, J, K, C), got shape {data.shape}")
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise OutputError(f"{path}: expected a finite 4 x 4 affine, got shape {affine.shape}")
    if modalities is not None and (data.ndim != 4 or len(modalities) != data.shape[3]):
        raise OutputError(
            f"{path}: got {len(modalities)} modality names for an array of shape {data.shape}"
        )
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind in "iu":
        return data
    if data.dtype.kind != "f":
        raise OutputError(
            f"{path}: cannot store voxels of type {data.dtype}; expected real numbers"
        )
    with np.errstate(over="ignore"):
        data = data.astype(np.float32, copy=False)
    if not np.isfinite(data).all():
        raise OutputError(f"{path}: {int((~np.isfinite(data)).sum())} voxels are NaN or infinite")
    return data
