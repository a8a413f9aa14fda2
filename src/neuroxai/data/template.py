"""The MNI152 brain template, loaded from the nilearn package."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import MissingExtraError


@dataclass(frozen=True, eq=False)
class Mni152:
    """MNI152 images ``(X, Y, Z)`` in 0...1 on one grid: T1, gray and white matter probability."""

    t1: NDArray[np.float32]
    gray: NDArray[np.float32]
    white: NDArray[np.float32]
    affine: NDArray[np.float64]
    """``(4, 4)``, voxel index to millimeters in the template's RAS+ space."""


def load_mni152(resolution: int, purpose: str, extra: str) -> Mni152:
    """Load the template.

    Parameters
    ----------
    resolution
        Voxel size in mm, an integer.
    purpose, extra
        Feature that needs the template and the extra that installs it, for the error message.

    Raises
    ------
    MissingExtraError
        If nilearn, which contains the template, is not installed.

    References
    ----------
    Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033

    Examples
    --------
    >>> brain = load_mni152(4, "An example", "phantom")
    >>> brain.t1.shape == brain.white.shape, bool(brain.gray.max() <= 1)
    (True, True)
    """
    try:
        return _load(resolution)
    except ImportError as error:
        raise MissingExtraError(purpose, extra, "nilearn") from error


@lru_cache(maxsize=2)
def _load(resolution: int) -> Mni152:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nilearn import datasets
    images: list[Any] = [
        datasets.load_mni152_template(resolution=resolution),
        datasets.load_mni152_gm_template(resolution=resolution),
        datasets.load_mni152_wm_template(resolution=resolution),
    ]
    t1, gray, white = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    return Mni152(t1, gray, white, np.asarray(images[0].affine, dtype=np.float64))
