"""Collections of 2D pictures: PNG and JPEG slices in one folder per class."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroxai.core.errors import CaseError
from neuroxai.data.case import Case, Source
from neuroxai.data.case_files import PICTURE_SUFFIXES, is_picture
from neuroxai.data.layouts import LAYOUTS

GRAY = "gray"
"""Modality of a picture."""

_FORMATS = ("PNG", "JPEG")
_MAX_BYTES = 2**26  # 64 MB, more than an uncompressed slice of 4096 x 4096 pixels in gray
_MAX_PIXELS = 2**26  # 8192 x 8192


def expects_pictures(modalities: Sequence[str]) -> bool:
    """Return whether a network with these input modalities takes pictures.

    Examples
    --------
    >>> expects_pictures(("gray",) * 3), expects_pictures(("FLAIR",))
    (True, False)
    """
    return set(modalities) == {GRAY}


def picture_name(path: Path) -> str:
    """Return the name of a picture in its collection: class folder and file name.

    Examples
    --------
    >>> picture_name(Path("in/glioma/0001.jpg"))
    'glioma/0001'
    """
    return f"{path.parent.name}/{path.stem}"


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures in the class folders of a collection, sorted.

    Raises
    ------
    CaseError
        If there are no pictures, or two pictures of a class have the same name.
    """
    try:
        found = sorted(
            path
            for place in folder.iterdir()
            if place.is_dir() and not place.name.startswith(".")
            for path in place.iterdir()
            if is_picture(path)
        )
    except OSError as error:
        raise CaseError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if not found:
        raise CaseError(
            f"{folder}: no pictures found; expected one folder per class with "
            f"{', '.join(PICTURE_SUFFIXES)} files"
        )
    names = [picture_name(path) for path in found]
    for name, following in itertools.pairwise(names):
        if name == following:
            raise CaseError(f"{folder}: two pictures are named {name}; rename one of them")
    return found


def read_picture(path: Path, size: Sequence[int]) -> Case:
    """Read a picture as a case with a single slice of the network's input size.

    The picture is rotated by its EXIF orientation, converted to gray, scaled to fit ``size`` with
    its aspect ratio preserved, and padded with black. Its class is the name of its folder.
    Laterality and pixel size are unknown, and results do not state them.

    Parameters
    ----------
    path
        PNG or JPEG file.
    size
        Columns and rows.

    Raises
    ------
    CaseError
        If the file is missing, too large, damaged, or not PNG or JPEG.
    """
    from PIL import Image, ImageOps

    try:
        size_mb = path.stat().st_size >> 20
        if path.stat().st_size > _MAX_BYTES:
            raise CaseError(
                f"{path}: {size_mb} MB is too large for a slice, at most {_MAX_BYTES >> 20} MB; "
                "export a smaller picture"
            )
        content = path.read_bytes()
        with warnings.catch_warnings():
            # Decompression bombs are rejected below by their number of pixels.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    raise CaseError(
                        f"{path}: {picture.width} × {picture.height} pixels are too many for a "
                        f"slice, at most {_MAX_PIXELS}; export a smaller picture"
                    )
                upright = ImageOps.exif_transpose(picture)
                gray = upright.convert("F" if upright.mode.startswith("I") else "L").convert("F")
    except FileNotFoundError as error:
        raise CaseError(f"{path}: no such file; expected a PNG or JPEG picture") from error
    except CaseError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CaseError(f"{path}: cannot be read as PNG or JPEG ({error})") from error
    columns, rows = int(size[0]), int(size[1])
    factor = min(columns / gray.width, rows / gray.height)
    width, height = (max(1, round(edge * factor)) for edge in gray.size)
    if (width, height) != gray.size:
        gray = gray.resize((width, height), Image.Resampling.BILINEAR)
    values = np.zeros((rows, columns), np.float32)
    top, left = (rows - height) // 2, (columns - width) // 2
    values[top : top + height, left : left + width] = np.asarray(gray, np.float32)
    return Case(
        name=f"{path.parent.name}_{path.stem}",
        volumes={GRAY: np.asfortranarray(values.T[:, :, None])},
        # The usual orientation of axial pictures, columns to the left and rows to the back, so
        # that figures show the picture as it is. It is an assumption: laterality stays unknown.
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]),
        layout=LAYOUTS["plain"],
        sources={GRAY: Source(str(path), hashlib.sha256(content).hexdigest())},
        warnings=(
            f"{path.name}: a picture has no information on laterality or pixel size; results "
            "are written with pixels of 1 mm",
        ),
        category=path.parent.name,
        laterality_known=False,
    )
