"""Correction of the bias field of the receive coil."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.itk_image import downsample, itk_array, itk_image, load_itk

_VOXEL = 4.0
"""Voxel size in mm at which the field is estimated; it is smooth."""

_ITERATIONS = (50, 50, 50, 50)
"""Largest number of iterations at each of ITK's default four resolutions of the field."""


def correct_bias_field(
    image: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Divide an image by its bias field, estimated with N4.

    Parameters
    ----------
    image
        ``(I, J, K)``.
    mask
        ``(I, J, K)``, voxels from which the field is estimated; all others are set to 0.
    affine
        ``(4, 4)``, voxel index to mm.

    Raises
    ------
    MissingExtraError
        If SimpleITK is not installed.
    RuntimeError
        If N4 fails, for example on an image of few voxels.

    References
    ----------
    Tustison et al. 2010, doi:10.1109/TMI.2010.2046908

    Examples
    --------
    >>> x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 48, 36)], indexing="ij")
    >>> brain = x**2 + y**2 + z**2 < 0.8
    >>> tissue = np.where((20 * x).astype(int) % 2, 60.0, 100.0) * brain
    >>> biased = (tissue * (1 + 0.3 * y)).astype(np.float32)
    >>> corrected = correct_bias_field(biased, brain, np.eye(4) * 4)
    >>> left, right = (float(np.median(corrected[brain & half])) for half in (y < 0, y > 0))
    >>> abs(left / right - 1) < 0.1
    True
    """
    itk = load_itk()
    full = itk_image(image, affine)
    n4 = itk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(_ITERATIONS)
    # A single thread, because the order of summation changes with several.
    n4.SetNumberOfWorkUnits(1)
    n4.Execute(downsample(full, _VOXEL), downsample(itk_image(mask, affine), _VOXEL))
    field = np.exp(itk_array(n4.GetLogBiasFieldAsImage(full)))
    return np.where(mask, image / field, 0).astype(np.float32)
