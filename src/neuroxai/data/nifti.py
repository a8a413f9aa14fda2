"""Reading of NIfTI files with integrity checks.

nibabel parses the header. Before memory is allocated, the size given in the header is compared
with the size of the file. Compressed files are read to the end, so that the gzip checksum is
verified.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.nifti_header import Header, validated_header
from neuroxai.data.nifti_writing import write_nifti

__all__ = [
    "Volume",
    "read_labels",
    "read_nifti",
    "read_nifti_header",
    "split_volume",
    "write_nifti",
]

_DEFLATE_LIMIT = 1032  # largest compression ratio of deflate
_CHUNK = 2**20

LABEL_ROUNDING = 1e-3
"""Largest difference of a label from an integer. A float32 slope of a 16-bit file makes errors of
about 1e-4; resampled labels differ by far more."""

_FINE_SLOPE = 0.02
"""Largest slope that rounding noise is expected of: labels up to 5, scaled to 8 bits."""

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
    """Stored voxel values before scaling, with the header."""

    stored: NDArray[Any]
    header: Header
    sha256: str


def read_nifti(path: str | os.PathLike[str], *, allow_constant: bool = False) -> Volume[np.float32]:
    """Read a 3D image as float32 ``(I, J, K)``, with the slope and intercept of the header applied.

    NIfTI-1 and NIfTI-2 are supported in both byte orders. Compression is detected from the
    content, not from the file name. A 4D file with one volume is read as 3D; of several volumes,
    ``x.nii.gz[1]`` reads the second.

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
    return Volume(data, raw.header.affine, raw.sha256, str(path), raw.header.warnings)


def read_labels(path: str | os.PathLike[str]) -> Volume[np.int32]:
    """Read a label image as int32 ``(I, J, K)``; constant images are accepted.

    Values within 0.001 of an integer are rounded, with a warning: files saved with a scaling in
    the header store 2 as 2.00003, or as 2.008 in 8 bits, where half a step is allowed.

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
    bounds, largest, allowed = np.iinfo(np.int32), 0.0, _label_rounding(raw)
    for k in range(raw.stored.shape[2]):
        values = _scaled(raw, k).astype(np.float64)
        with np.errstate(invalid="ignore"):
            rounded = np.rint(values)
            off = np.abs(values - rounded)
            fits = (off <= allowed) & (rounded >= bounds.min) & (rounded <= bounds.max)
        if not fits.all():
            example = values[~fits].flat[0]
            raise CaseError(
                f"{path}: labels must be integers, got {example:.6g}; if the file was resampled, "
                "resample it again with nearest-neighbor interpolation"
            )
        largest = max(largest, float(off.max(initial=0)))
        data[..., k] = rounded
    warnings = raw.header.warnings
    if largest:
        warnings += (
            f"{path}: label values differ from integers by up to {largest:.2g}; they were rounded",
        )
    return Volume(data, raw.header.affine, raw.sha256, str(path), warnings)


def _label_rounding(raw: _Raw) -> float:
    """Return the largest rounding error of a label: half a step of integers with a fine slope."""
    slope = abs(raw.header.slope or 0.0)
    scaled = raw.stored.dtype.kind in "iu" and slope < _FINE_SLOPE
    return max(LABEL_ROUNDING, 0.51 * slope) if scaled else LABEL_ROUNDING


def _scaled(raw: _Raw, k: int) -> NDArray[Any]:
    stored: NDArray[Any] = raw.stored[..., k]
    if raw.header.slope is None:
        return stored
    scaled: NDArray[Any] = stored.astype(np.float64) * raw.header.slope + raw.header.inter
    return scaled


def read_nifti_header(path: str | os.PathLike[str]) -> Header:
    """Read and validate the header of a file, without its voxels.

    Raises
    ------
    CaseError
        If the file cannot be read, is not NIfTI, or its header is invalid or inconsistent with the
        size of the file.

    Examples
    --------
    >>> import tempfile
    >>> image = np.zeros((2, 3, 4), dtype=np.float32)
    >>> path = write_nifti(Path(tempfile.mkdtemp()) / "t1.nii.gz", image, np.eye(4))
    >>> read_nifti_header(path).shape
    (2, 3, 4)
    """
    file, volume = split_volume(path)
    with _stream(file) as stream, _uncompressed(stream) as (unpacked, most_bytes):
        return validated_header(file, unpacked, most_bytes, volume)


def split_volume(path: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], int | None]:
    """Split ``x.nii.gz[1]`` into the file and the index of a volume in it; None without one.

    Examples
    --------
    >>> split_volume("x.nii.gz[1]"), split_volume("x.nii.gz")
    (('x.nii.gz', 1), ('x.nii.gz', None))
    """
    text = os.fspath(path)
    match = re.fullmatch(r"(.+)\[(\d{1,6})\]", text, re.DOTALL)
    if match is None or Path(text).exists():
        return path, None
    return match[1], int(match[2])


def _read(path: str | os.PathLike[str]) -> _Raw:
    file, volume = split_volume(path)
    with _stream(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        with _uncompressed(stream) as (unpacked, most_bytes):
            header = validated_header(file, unpacked, most_bytes, volume)
            return _Raw(_voxels(file, unpacked, header), header, digest)


@contextmanager
def _stream(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """Context manager that opens a file that is not empty, and words its read errors."""
    try:
        with _opened(path) as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise CaseError(f"{path}: the file is empty (0 bytes); copy or export it again")
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CaseError(
            f"{path}: the gzip stream is damaged ({str(error).rstrip('.').lower()}); "
            "copy or export the file again"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaseError(f"{path}: cannot be read ({reason})") from error


@contextmanager
def _uncompressed(stream: io.BufferedReader) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, int]]:
    """Context manager for a stream's decompressed bytes, and their largest possible number."""
    size = os.fstat(stream.fileno()).st_size
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    if not packed:
        yield stream, size
        return
    with gzip.GzipFile(fileobj=stream) as unpacked:
        yield unpacked, size * _DEFLATE_LIMIT


def _opened(path: str | os.PathLike[str]) -> io.BufferedReader:
    # Check before opening: opening a FIFO would block.
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (Path.stat accepts null bytes)
        kind = "a folder" if Path(path).is_dir() else "not a regular file"
        raise CaseError(f"{path}: is {kind}; expected a NIfTI file (.nii or .nii.gz)")
    return Path(path).open("rb")


def _voxels(path: object, stream: IO[bytes] | gzip.GzipFile, header: Header) -> NDArray[Any]:
    """Read the voxels after the header, to the end of the stream."""
    shape, dtype = header.shape, header.dtype
    data_bytes = math.prod(shape) * dtype.itemsize
    stream.read(header.gap)
    got = _skip(stream, header.before)
    body = bytearray(data_bytes)
    got += _fill(stream, body)
    got += _skip(stream, header.after)
    expected = header.before + data_bytes + header.after
    if got < expected:
        raise CaseError(
            f"{path}: the file is truncated: expected {expected} bytes of voxels, got {got}; "
            "copy or export it again"
        )
    if stream.read(1):
        raise CaseError(
            f"{path}: the file has more data than the {' x '.join(map(str, shape))} voxels of "
            f"{dtype.name} given in its header; correct the header"
        )
    return np.frombuffer(body, dtype=dtype).reshape(shape, order="F")


def _skip(stream: IO[bytes] | gzip.GzipFile, count: int) -> int:
    """Read and discard bytes; return how many there were."""
    left = count
    while left and (block := stream.read(min(_CHUNK, left))):
        left -= len(block)
    return count - left


def _fill(stream: IO[bytes] | gzip.GzipFile, body: bytearray) -> int:
    view, got = memoryview(body), 0
    while got < len(body):
        block = stream.read(min(_CHUNK, len(body) - got))
        if not block:
            break
        view[got : got + len(block)] = block
        got += len(block)
    return got
