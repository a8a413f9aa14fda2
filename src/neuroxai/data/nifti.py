"""Reading of NIfTI files with integrity checks, and atomic writing.

nibabel parses the header. Before memory is allocated, the size given in the header is compared
with the size of the file. Compressed files are read to the end, so that the gzip checksum is
verified.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, OutputError
from neuroxai.data.grid import corner_distance
from neuroxai.data.nifti_header import (
    read_affine,
    read_dtype,
    read_header,
    read_scaling,
    read_shape,
)
from neuroxai.files.atomic import replaced_whole

MAX_VOXELS = 2**27
"""Limit on the image size: 512 voxels along each axis, more than any head scan."""

_MAX_DATA_BYTES = 2**29  # MAX_VOXELS of 4 bytes
_MAX_EXTENSION_BYTES = 2**24  # header extensions usually have a few kB
_DEFLATE_LIMIT = 1032  # largest compression ratio of deflate
_CHUNK = 2**20

Scalar = TypeVar("Scalar", np.float32, np.int32)


@dataclass(frozen=True, eq=False)
class Volume(Generic[Scalar]):
    """Image read from a NIfTI file.

    Attributes
    ----------
    data
        ``(I, J, K)``, float32 for images, int32 for labels, in Fortran order as in the file.
    affine
        ``(4, 4)`` float64, voxel index to millimeters in RAS+ world space.
    sha256
        Hash of the file as stored on disk.
    path
        Path as passed by the caller.
    warnings
        Irregularities that do not prevent use, one sentence each, naming the file.
    """

    data: NDArray[Scalar]
    affine: NDArray[np.float64]
    sha256: str
    path: str
    warnings: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along I, J, K."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


@dataclass(frozen=True, eq=False)
class _Raw:
    """Stored voxel values before scaling, with the metadata of the header."""

    stored: NDArray[Any]
    slope: float | None
    inter: float
    affine: NDArray[np.float64]
    sha256: str
    warnings: tuple[str, ...]


def read_nifti(path: str | os.PathLike[str], *, allow_constant: bool = False) -> Volume[np.float32]:
    """Read a 3D image as float32 ``(I, J, K)``, with the slope and intercept of the header applied.

    NIfTI-1 and NIfTI-2 are supported in both byte orders. Compression is detected from the
    content, not from the file name. A 4D file with one time point is read as 3D.

    Parameters
    ----------
    path
        Path of the file.
    allow_constant
        Accept an image with a single value.

    Raises
    ------
    CaseError
        If the file is missing, not a regular file, damaged, not NIfTI, inconsistent with its
        header, larger than :data:`MAX_VOXELS`, without a valid affine, contains NaN or infinite
        values, or is constant.

    Examples
    --------
    >>> import tempfile
    >>> image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    >>> path = write_nifti(Path(tempfile.mkdtemp()) / "t1.nii.gz", image, np.diag([1, 1, 2, 1]))
    >>> volume = read_nifti(path)
    >>> volume.data.shape, volume.spacing
    ((2, 3, 4), (1.0, 1.0, 2.0))
    """
    raw = _read(path)
    if not allow_constant:
        first = raw.stored.flat[0]
        if bool((raw.stored == first).all()):
            raise CaseError(
                f"{path}: the image is constant (every voxel is {first}); export the scan again"
            )
    data: NDArray[np.float32] = np.empty_like(raw.stored, dtype=np.float32, order="F")
    bad = 0
    # Scale slice by slice: a float64 copy of the volume would double the memory.
    for k in range(raw.stored.shape[2]):
        with np.errstate(over="ignore", invalid="ignore"):
            data[..., k] = _scaled(raw, k)
        bad += int(np.count_nonzero(~np.isfinite(data[..., k])))
    if bad:
        raise CaseError(
            f"{path}: {bad} of {data.size} voxels are NaN or infinite; correct the file, "
            "for example with numpy.nan_to_num if they are background"
        )
    return Volume(data, raw.affine, raw.sha256, str(path), raw.warnings)


def read_labels(path: str | os.PathLike[str]) -> Volume[np.int32]:
    """Read a label image as int32 ``(I, J, K)``; constant images are accepted.

    Raises
    ------
    CaseError
        As for :func:`read_nifti`, and if a value is not an integer in the range of int32.

    Examples
    --------
    >>> import tempfile
    >>> labels = np.zeros((2, 3, 4), dtype=np.uint8)
    >>> path = write_nifti(Path(tempfile.mkdtemp()) / "seg.nii.gz", labels, np.eye(4))
    >>> str(read_labels(path).data.dtype)
    'int32'
    """
    raw = _read(path)
    data: NDArray[np.int32] = np.empty_like(raw.stored, dtype=np.int32, order="F")
    bounds = np.iinfo(np.int32)
    for k in range(raw.stored.shape[2]):
        values = _scaled(raw, k)
        with np.errstate(invalid="ignore"):
            whole = np.isfinite(values) & (np.rint(values) == values)
            fits = whole & (values >= bounds.min) & (values <= bounds.max)
        if not fits.all():
            example = values[~fits].flat[0]
            raise CaseError(
                f"{path}: labels must be integers, got {example}; resample label images with "
                "nearest-neighbor interpolation"
            )
        data[..., k] = values
    return Volume(data, raw.affine, raw.sha256, str(path), raw.warnings)


def _scaled(raw: _Raw, k: int) -> NDArray[Any]:
    stored: NDArray[Any] = raw.stored[..., k]
    if raw.slope is None:
        return stored
    scaled: NDArray[Any] = stored.astype(np.float64) * raw.slope + raw.inter
    return scaled


def _read(path: str | os.PathLike[str]) -> _Raw:
    try:
        with _opened(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:
                raise CaseError(f"{path}: the file is empty (0 bytes); copy or export it again")
            digest = hashlib.sha256()
            while block := stream.read(_CHUNK):
                digest.update(block)
            stream.seek(0)
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            if not packed:
                return _parsed(path, stream, size, digest.hexdigest())
            with gzip.GzipFile(fileobj=stream) as unpacked:
                return _parsed(path, unpacked, size * _DEFLATE_LIMIT, digest.hexdigest())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CaseError(
            f"{path}: the gzip stream is damaged ({str(error).rstrip('.').lower()}); "
            "copy or export the file again"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaseError(f"{path}: cannot be read ({reason})") from error


def _opened(path: str | os.PathLike[str]) -> IO[bytes]:
    # Check before opening: opening a FIFO would block.
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (Path.stat accepts null bytes)
        kind = "a folder" if Path(path).is_dir() else "not a regular file"
        raise CaseError(f"{path}: is {kind}; expected a NIfTI file (.nii or .nii.gz)")
    return Path(path).open("rb")


def _parsed(path: object, stream: IO[bytes] | gzip.GzipFile, most_bytes: int, sha256: str) -> _Raw:
    header = read_header(path, stream)
    warnings: list[str] = []
    shape = read_shape(path, header)
    dtype = read_dtype(path, header)
    data_bytes = math.prod(shape) * dtype.itemsize
    if math.prod(shape) > MAX_VOXELS or data_bytes > _MAX_DATA_BYTES:
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
    affine = read_affine(path, header, shape, warnings)
    stream.read(int(offset) - int(header["sizeof_hdr"]))
    body = bytearray(data_bytes)
    got = _fill(stream, body)
    if got < data_bytes:
        raise CaseError(
            f"{path}: the file is truncated: expected {data_bytes} bytes of voxels, got {got}; "
            "copy or export it again"
        )
    if stream.read(1):
        raise CaseError(
            f"{path}: the file has more data than the {' x '.join(map(str, shape))} voxels of "
            f"{dtype.name} given in its header; correct the header"
        )
    stored = np.frombuffer(body, dtype=dtype).reshape(shape, order="F")
    slope, inter = read_scaling(path, header)
    return _Raw(stored, slope, inter, affine, sha256, tuple(warnings))


def _fill(stream: IO[bytes] | gzip.GzipFile, body: bytearray) -> int:
    view, got = memoryview(body), 0
    while got < len(body):
        block = stream.read(min(_CHUNK, len(body) - got))
        if not block:
            break
        view[got : got + len(block)] = block
        got += len(block)
    return got


def write_nifti(
    path: str | os.PathLike[str],
    data: NDArray[Any],
    affine: NDArray[Any],
    *,
    description: str = "",
    modalities: Sequence[str] | None = None,
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
    if modalities is not None:
        text = "modalities: " + ", ".join(modalities)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text.encode()))
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if corner_distance(image.get_qform(), affine, data.shape[:3]) > 1e-3:
        image.set_qform(affine, code=0)
        image.set_sform(affine, code=1)
    blob = image.to_bytes()
    with replaced_whole(path) as temporary, temporary.open("wb") as stream:
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
