"""2D pictures in class folders: PNG and JPEG slices that came without their scan."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroxai.core.errors import CaseError
from neuroxai.data.case import Case, Source
from neuroxai.data.layouts import LAYOUTS

GRAY = "gray"
"""The one modality that a picture has."""

ENDINGS = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_LARGEST_BYTES = 2**26
_LARGEST_PIXELS = 2**26


def is_picture(path: Path) -> bool:
    """Whether a file is named as a picture.

    Examples
    --------
    >>> is_picture(Path("a/b.JPG")), is_picture(Path("a/b.nii.gz"))
    (True, False)
    """
    return path.suffix.lower() in ENDINGS


def expects_pictures(modalities: Sequence[str]) -> bool:
    """Whether a network with these modalities was made for pictures.

    Examples
    --------
    >>> expects_pictures(("gray",) * 3), expects_pictures(("FLAIR",))
    (True, False)
    """
    return set(modalities) == {GRAY}


def picture_name(path: Path) -> str:
    """Return a picture's name in its collection: its class folder and its own name.

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
        If there is none, or two of one class have one name.
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
            f"{folder}: holds no picture; expected a folder for each class with "
            f"{', '.join(ENDINGS)} files in it"
        )
    names = [picture_name(path) for path in found]
    for one, other in itertools.pairwise(names):
        if one == other:
            raise CaseError(f"{folder}: {one} is there twice; rename one of the two")
    return found


def read_picture(path: Path, size: Sequence[int]) -> Case:
    """Read a picture as a case of one slice, as large as the network's input.

    It is turned as its EXIF tag says, made gray, and scaled to fit into ``size`` with its shape
    kept; what is left at the sides is black. Its class is the name of its folder. It does not say
    which side of the patient is where, nor how large a pixel is, and no result pretends to know.

    Parameters
    ----------
    path
        PNG or JPEG.
    size
        Columns and rows.

    Raises
    ------
    CaseError
        If the file is missing, too large, damaged, or no PNG or JPEG.
    """
    from PIL import Image, ImageOps

    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise CaseError(f"{path}: is larger than {_LARGEST_BYTES >> 20} MB, no slice is")
        content = path.read_bytes()
        with warnings.catch_warnings():
            # A picture that is as large as a bomb is refused below, by its size.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as picture:
                if picture.width * picture.height > _LARGEST_PIXELS:
                    raise CaseError(
                        f"{path}: {picture.width} × {picture.height} pixels, no slice has as many"
                    )
                shown = ImageOps.exif_transpose(picture)  # as every viewer turns it
                gray = shown.convert("F" if shown.mode.startswith("I") else "L").convert("F")
    except FileNotFoundError as error:
        raise CaseError(f"{path}: no such picture") from error
    except CaseError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CaseError(f"{path}: cannot be read as PNG or JPEG ({error})") from error
    columns, rows = int(size[0]), int(size[1])
    factor = min(columns / gray.width, rows / gray.height)
    wide, high = (max(1, round(edge * factor)) for edge in gray.size)
    if (wide, high) != gray.size:
        gray = gray.resize((wide, high), Image.Resampling.BILINEAR)
    values = np.zeros((rows, columns), np.float32)
    top, left = (rows - high) // 2, (columns - wide) // 2
    values[top : top + high, left : left + wide] = np.asarray(gray, np.float32)
    return Case(
        name=f"{path.parent.name}_{path.stem}",
        volumes={GRAY: np.asfortranarray(values.T[:, :, None])},
        # Columns run to the patient's left and rows to the back, as pictures of slices mostly do:
        # so a figure shows the picture as it is. It is no knowledge, hence not laterality_known.
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]),
        layout=LAYOUTS["plain"],
        sources={GRAY: Source(str(path), hashlib.sha256(content).hexdigest())},
        warnings=(
            f"{path.name}: a picture does not say which side is the patient's left, nor how large "
            "its pixels are; 1 mm is written",
        ),
        category=path.parent.name,
        laterality_known=False,
    )
