"""NIfTI files, read with distrust and written whole.

nibabel parses the header, this module guards it: the claim of a header is held against the bytes
that are there before anything is allocated, and a gzip stream is read to its end, where its
checksum lies.
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
"""Larger than any head scan (512 voxels in each direction), small enough to refuse a bomb."""

_MAX_DATA_BYTES = 2**29
_MAX_EXTENSION_BYTES = 2**24
_DEFLATE_LIMIT = 1032  # no deflate stream grows by more than this factor
_CHUNK = 2**20

Scalar = TypeVar("Scalar", np.float32, np.int32)


@dataclass(frozen=True, eq=False)
class Volume(Generic[Scalar]):
    """One image of a file.

    Attributes
    ----------
    data
        ``(I, J, K)``, float32 for images, int32 for labels; in the file's order of memory.
    affine
        ``(4, 4)`` float64, voxel index to millimeters in RAS+ world space.
    sha256
        Of the file's bytes as they lie on disk.
    path
        As it was given.
    warnings
        What is odd but safe to use, a sentence each, naming the file.
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
    """The stored numbers, before scaling, and what the header says of them."""

    stored: NDArray[Any]
    slope: float | None
    inter: float
    affine: NDArray[np.float64]
    sha256: str
    warnings: tuple[str, ...]


def read_nifti(path: str | os.PathLike[str], *, allow_constant: bool = False) -> Volume[np.float32]:
    """Read one image as float32 ``(I, J, K)``, scaled by the header's slope and intercept.

    Big-endian, NIfTI-1 and -2, plain and gzipped files are read, whatever their ending says; a
    4-D file with one time point counts as 3-D.

    Parameters
    ----------
    path
        The file.
    allow_constant
        Accept an image whose voxels are all equal.

    Raises
    ------
    CaseError
        If the file is missing, not a regular file, damaged, not NIfTI, contradicts its own
        header, is larger than :data:`MAX_VOXELS`, has no usable affine, holds NaN or infinity,
        or is constant.

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
                f"{path}: the image is constant (every voxel is {first}), it shows nothing; "
                "check the export"
            )
    data: NDArray[np.float32] = np.empty_like(raw.stored, dtype=np.float32, order="F")
    bad = 0
    # Slice by slice: scaling all in float64 would need twice the memory.
    for k in range(raw.stored.shape[2]):
        with np.errstate(over="ignore", invalid="ignore"):
            data[..., k] = _scaled(raw, k)
        bad += int(np.count_nonzero(~np.isfinite(data[..., k])))
    if bad:
        raise CaseError(
            f"{path}: {bad} of {data.size} voxels are NaN or infinite; repair the file, "
            "for example with numpy.nan_to_num where they are background"
        )
    return Volume(data, raw.affine, raw.sha256, str(path), raw.warnings)


def read_labels(path: str | os.PathLike[str]) -> Volume[np.int32]:
    """Read one label image as int32 ``(I, J, K)``; a constant one is accepted.

    Raises
    ------
    CaseError
        As :func:`read_nifti`, and if a value is not an integer within int32.

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
                f"{path}: labels must be whole numbers, got {example}; a label image that was "
                "resampled needs nearest-neighbor interpolation"
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
    # A FIFO would block an open for ever: look before opening.
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (Path.stat refuses no null byte)
        kind = "a folder" if Path(path).is_dir() else "not a regular file"
        raise CaseError(f"{path}: is {kind}, expected a NIfTI file (.nii or .nii.gz)")
    return Path(path).open("rb")


def _parsed(path: object, stream: IO[bytes] | gzip.GzipFile, most_bytes: int, sha256: str) -> _Raw:
    header = read_header(path, stream)
    warnings: list[str] = []
    shape = read_shape(path, header)
    dtype = read_dtype(path, header)
    data_bytes = math.prod(shape) * dtype.itemsize
    if math.prod(shape) > MAX_VOXELS or data_bytes > _MAX_DATA_BYTES:
        raise CaseError(
            f"{path}: the header claims {' x '.join(map(str, shape))} voxels of {dtype.name}, "
            f"more than the {MAX_VOXELS} voxels and {_MAX_DATA_BYTES} bytes that are accepted; "
            "resample the scan, or repair its header"
        )
    start = int(header["sizeof_hdr"]) + 4
    offset = float(header["vox_offset"])
    if not start <= offset <= start + _MAX_EXTENSION_BYTES or offset != int(offset):
        raise CaseError(
            f"{path}: the header's data offset is {offset:g}, expected {start} or a little more; "
            "the header is damaged"
        )
    needed = int(offset) + data_bytes
    if needed > most_bytes:
        raise CaseError(
            f"{path}: the header claims {needed} bytes, the file holds at most "
            f"{most_bytes}; it is truncated or its header is wrong"
        )
    affine = read_affine(path, header, shape, warnings)
    stream.read(int(offset) - int(header["sizeof_hdr"]))
    body = bytearray(data_bytes)
    got = _fill(stream, body)
    if got < data_bytes:
        raise CaseError(
            f"{path}: truncated: the header claims {data_bytes} bytes of voxels, "
            f"the file holds {got}; copy or export it again"
        )
    if stream.read(1):
        raise CaseError(
            f"{path}: the file goes on after the {' x '.join(map(str, shape))} voxels of "
            f"{dtype.name} that its header claims; the header is wrong"
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
    """Write ``(I, J, K)`` or ``(I, J, K, C)`` whole or not at all; equal input, equal bytes.

    Real numbers are stored as float32, integers as they are, booleans as uint8. The affine goes
    into the sform and, where a rotation can hold it, into the qform (a sheared one cannot).

    Parameters
    ----------
    path
        Ends in ``.nii`` or ``.nii.gz``.
    affine
        ``(4, 4)``, voxel index to mm in RAS+ world space.
    description
        For the header, at most 79 bytes of it are kept.
    modalities
        Names of the C volumes, kept in a comment of the header.

    Raises
    ------
    OutputError
        If the array cannot be stored or the place cannot be written to.

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
        raise OutputError(f"{path}: a NIfTI file is named .nii or .nii.gz; rename it")
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
            # No name and no time in the stream: the same map is the same file.
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
            f"{path}: {len(modalities)} modalities are named for an array of shape {data.shape}"
        )
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind in "iu":
        return data
    if data.dtype.kind != "f":
        raise OutputError(f"{path}: cannot store voxels of type {data.dtype}")
    with np.errstate(over="ignore"):
        data = data.astype(np.float32, copy=False)
    if not np.isfinite(data).all():
        raise OutputError(f"{path}: {int((~np.isfinite(data)).sum())} voxels are NaN or infinite")
    return data
