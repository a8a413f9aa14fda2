"""Conversion between arrays and SimpleITK images, which use reversed axes and LPS+ world space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import MissingExtraError

_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def load_itk(feature: str = "Tissue segmentation", extra: str = "tissues") -> Any:
    """Return the SimpleITK module.

    Parameters
    ----------
    feature, extra
        What needs it, and the extra that installs it, for the error message.

    Raises
    ------
    MissingExtraError
        If SimpleITK is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtraError(feature, extra, "SimpleITK") from error
    return SimpleITK


def itk_image(data: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    """Convert a volume ``(I, J, K)`` and its affine to an ITK image.

    Parameters
    ----------
    data
        Floating-point values, or booleans, which become 0 and 1.
    affine
        ``(4, 4)``, voxel index to millimeters in RAS+; shear is discarded.

    Examples
    --------
    >>> image = itk_image(np.zeros((4, 5, 6)), np.diag([2.0, 1.0, 3.0, 1.0]))
    >>> image.GetSize(), image.GetSpacing()
    ((4, 5, 6), (2.0, 1.0, 3.0))
    """
    kind = np.uint8 if data.dtype == bool else np.float32
    image = load_itk().GetImageFromArray(np.ascontiguousarray(data.astype(kind).T))
    lps = _TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def itk_array(image: Any) -> NDArray[np.float32]:
    """Return the values of an ITK image, ``(I, J, K)``."""
    return np.asarray(load_itk().GetArrayFromImage(image), dtype=np.float32).T


def downsample(image: Any, voxel: float) -> Any:
    """Subsample an image by integer factors to voxels of at least ``voxel`` mm.

    Examples
    --------
    >>> downsample(itk_image(np.zeros((40, 50, 6)), np.diag([1.0, 2.0, 5.0, 1.0])), 4.0).GetSize()
    (10, 25, 6)
    """
    factors = [math.ceil(voxel / size) for size in image.GetSpacing()]
    return load_itk().Shrink(image, factors)
