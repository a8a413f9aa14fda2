"""Validation of NIfTI headers.

nibabel decodes the fields; its own checks are disabled, because they repair a header and continue.
Here an invalid header is an error and an unusual one a warning.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.grid import corner_distance

_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")

MAX_VOXELS = 2**27
"""Limit on the image size: 512 voxels along each axis, more than any head scan."""

_MAX_DATA_BYTES = 2**29  # MAX_VOXELS of 4 bytes
_MAX_EXTENSION_BYTES = 2**24  # header extensions usually have a few kB


@dataclass(frozen=True, eq=False)
class Header:
    """Header of a NIfTI file, after validation.

    Attributes
    ----------
    shape
        Grid size ``(I, J, K)``.
    affine
        ``(4, 4)`` float64, voxel index to millimeters in RAS+ world space.
    dtype
        Data type of the stored voxels, including byte order.
    slope, inter
        Intensity scaling; the slope is None if stored values are intensities.
    gap
        Bytes between the header and the voxels.
    before, after
        Bytes of the volumes before and after the one that is read, in a 4D file.
    warnings
        Irregularities that do not prevent use, one sentence each, naming the file.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    slope: float | None
    inter: float
    gap: int
    warnings: tuple[str, ...]
    before: int = 0
    after: int = 0


def validated_header(
    path: object,
    stream: IO[bytes] | gzip.GzipFile,
    most_bytes: int,
    volume: int | None = None,
) -> Header:
    """Read the header at the start of a stream of at most ``most_bytes`` bytes, and validate it.

    Parameters
    ----------
    volume
        Index of a volume in a 4D file; None for a file with a single volume.

    Raises
    ------
    CaseError
        If a field is invalid, or the voxels cannot fit into the stream.
    """
    header = read_header(path, stream)
    warnings: list[str] = []
    shape, volumes = read_shape(path, header, volume)
    dtype = read_dtype(path, header)
    gap = _gap(path, header, (*shape, volumes), dtype, most_bytes)
    affine = read_affine(path, header, shape, warnings)
    slope, inter = read_scaling(path, header)
    size = math.prod(shape) * dtype.itemsize
    before = (volume or 0) * size
    after = (volumes - 1) * size - before
    return Header(shape, affine, dtype, slope, inter, gap, tuple(warnings), before, after)


def _gap(
    path: object,
    header: Any,
    shape: tuple[int, int, int, int],
    dtype: np.dtype[Any],
    most_bytes: int,
) -> int:
    """Return the number of bytes between header and voxels, after checks of all sizes."""
    data_bytes = math.prod(shape) * dtype.itemsize
    single = math.prod(shape[:3])
    if single > MAX_VOXELS or single * dtype.itemsize > _MAX_DATA_BYTES:
        raise CaseError(
            f"{path}: the header gives {' x '.join(map(str, shape))} voxels of {dtype.name}; "
            f"the limits are {MAX_VOXELS} voxels and {_MAX_DATA_BYTES} bytes; "
            "resample the scan or correct its header"
        )
    start = int(header["sizeof_hdr"]) + 4
    offset = float(header["vox_offset"])
    if not start <= offset <= start + _MAX_EXTENSION_BYTES or offset != int(offset):
        raise CaseError(
            f"{path}: invalid data offset {offset:g} in the header, expected {start} or slightly "
            "more; export the file again"
        )
    needed = int(offset) + data_bytes
    if needed > most_bytes:
        raise CaseError(
            f"{path}: the header gives {needed} bytes, the file has at most {most_bytes}; "
            "the file is truncated or its header is wrong"
        )
    return int(offset) - int(header["sizeof_hdr"])


def read_header(path: object, stream: IO[bytes] | gzip.GzipFile) -> Any:
    """Decode the header at the start of a stream, or raise an error that names the file type."""
    import nibabel as nib

    block = stream.read(348)
    size = {block[:4][::step] for step in (1, -1)}
    if (348).to_bytes(4, "little") in size and block[344:348] == b"n+1\0":
        return nib.Nifti1Header(block, check=False)
    if (540).to_bytes(4, "little") in size:
        block += stream.read(540 - 348)
        if len(block) == 540 and block[4:12] == b"n+2\0\r\n\x1a\n":
            return nib.Nifti2Header(block, check=False)
    found = "the file is not NIfTI"
    if block[128:132] == b"DICM":
        found = "the file is DICOM; convert the series first, for example with dcm2niix"
    elif block[344:348] == b"ni1\0":
        found = "the file is one of a .hdr/.img pair; convert it to .nii, for example with nibabel"
    elif len(block) < 348:
        found = f"the file has only {len(block)} bytes, less than a NIfTI header"
    raise CaseError(f"{path}: expected a NIfTI file (.nii or .nii.gz), but {found}")


def read_shape(
    path: object, header: Any, volume: int | None = None
) -> tuple[tuple[int, int, int], int]:
    """Return the grid size ``(I, J, K)`` of a volume, and the number of volumes in the file."""
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7 or any(n < 1 for n in dim[1 : dim[0] + 1]):
        raise CaseError(f"{path}: invalid dimensions {dim} in the header; export the file again")
    shape = dim[1 : dim[0] + 1]
    volumes = math.prod(shape[3:])
    if len(shape) < 3 or (volume is None and volumes > 1):
        raise CaseError(
            f"{path}: the image has {len(shape)} dimensions {tuple(shape)}, expected a single 3D "
            "volume; "
            + (
                f"name one of its {volumes} volumes for each modality, counted from 0: "
                f'--file MODALITY="{path}[0]"'
                if len(shape) > 3
                else "export the scan as a volume"
            )
        )
    if volume is not None and volume >= volumes:
        raise CaseError(
            f"{path}: there is no volume {volume}; the file has {volumes}, counted from 0"
        )
    return (shape[0], shape[1], shape[2]), volumes


def read_dtype(path: object, header: Any) -> np.dtype[Any]:
    """Return the data type of the stored voxels, including byte order; integer or real only."""
    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception as error:  # nibabel has no specific error for an unknown code
        raise CaseError(
            f"{path}: unknown datatype {code} in the header; export the file again"
        ) from error
    if dtype.str[1:] not in _DTYPES:
        names = {"c": "complex", "V": "color (RGB)", "f": "extended precision"}
        raise CaseError(
            f"{path}: voxels are {names.get(dtype.kind, 'unknown')} (datatype {code}), "
            "expected integers or real numbers; convert the file to float32"
        )
    return dtype


def read_scaling(path: object, header: Any) -> tuple[float | None, float]:
    """Return slope and intercept; slope None means that no scaling applies."""
    try:
        slope, inter = header.get_slope_inter()
        infinite = bool(np.isinf(header["scl_slope"]))  # nibabel treats this as no scaling
    except Exception as error:
        raise CaseError(
            f"{path}: the intensity scaling in the header is not finite; export the file again"
        ) from error
    if infinite:
        raise CaseError(
            f"{path}: the intensity scaling in the header is not finite; export the file again"
        )
    if slope is None or (slope == 1.0 and inter == 0.0):
        return None, 0.0
    return float(slope), float(inter)


def read_affine(
    path: object, header: Any, shape: tuple[int, int, int], warnings: list[str]
) -> NDArray[np.float64]:
    """Return the affine in mm, preferring the sform; irregularities are added to ``warnings``."""
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise CaseError(
            f"{path}: the header has neither sform nor qform, so left and right are unknown; "
            "set the affine from a trusted source, for example with nibabel: "
            "image.set_sform(affine, code=1)"
        )
    qform = None
    if int(header["qform_code"]) > 0:
        try:
            qform = np.asarray(header.get_qform(), dtype=np.float64)
        except Exception as error:
            if int(header["sform_code"]) <= 0:
                raise CaseError(
                    f"{path}: the qform in the header is not a rotation; set the sform, for "
                    "example with nibabel: image.set_sform(affine, code=1)"
                ) from error
            warnings.append(f"{path}: the qform is not a rotation; the sform is used")
    if int(header["sform_code"]) > 0:
        affine = np.asarray(header.get_sform(), dtype=np.float64)
    else:
        affine = np.asarray(qform, dtype=np.float64)
    columns = np.linalg.norm(affine[:3, :3], axis=0)
    # Ratio of the voxel volume to the volume of a box with the same edges; false for NaN.
    if not (
        np.isfinite(affine).all()
        and columns.min() > 0
        and abs(np.linalg.det(affine[:3, :3] / columns)) > 1e-6
    ):
        raise CaseError(
            f"{path}: the affine is singular or not finite; set the sform, for example with "
            "nibabel: image.set_sform(affine, code=1)"
        )
    if columns.min() < 0.05 or columns.max() > 50:
        size = " x ".join(f"{mm:.3g}" for mm in columns)
        warnings.append(f"{path}: voxels of {size} mm are unlikely for a brain scan")
    if qform is not None and int(header["sform_code"]) > 0:
        gap = corner_distance(affine, qform, shape)
        if gap > 1:
            warnings.append(
                f"{path}: sform and qform differ by up to {gap:.1f} mm; the sform is used"
            )
    return affine
