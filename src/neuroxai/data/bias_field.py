"""The coil's uneven brightness, taken out of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.itk_image import downsample, itk_array, itk_image, load_itk

_VOXEL = 4.0
"""The field is smooth: it is sought on voxels of this size in mm."""


def correct_bias_field(
    image: NDArray[np.float32], within: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Divide an image by its bias field as N4 finds it.

    Parameters
    ----------
    image
        ``(I, J, K)``.
    within
        ``(I, J, K)``: the brain's voxels, which the field is told from; others become 0.
    affine
        ``(4, 4)``, voxel index to mm.

    Raises
    ------
    MissingExtraError
        If SimpleITK is not installed.
    RuntimeError
        If N4 finds no field, as in an image of few voxels.

    References
    ----------
    Tustison et al. 2010, doi:10.1109/TMI.2010.2046908

    Examples
    --------
    >>> x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 48, 36)], indexing="ij")
    >>> brain = x**2 + y**2 + z**2 < 0.8
    >>> tissue = np.where((20 * x).astype(int) % 2, 60.0, 100.0) * brain
    >>> even = correct_bias_field((tissue * (1 + 0.3 * y)).astype(np.float32), brain, np.eye(4) * 4)
    >>> left, right = (float(np.median(even[brain & half])) for half in (y < 0, y > 0))
    >>> abs(left / right - 1) < 0.1
    True
    """
    itk = load_itk()
    whole = itk_image(image, affine)
    search = itk.N4BiasFieldCorrectionImageFilter()
    search.SetMaximumNumberOfIterations([50] * 4)
    # With several threads sums differ in their last digits from run to run.
    search.SetNumberOfWorkUnits(1)
    search.Execute(downsample(whole, _VOXEL), downsample(itk_image(within, affine), _VOXEL))
    field = np.exp(itk_array(search.GetLogBiasFieldAsImage(whole)))
    return np.where(within, image / field, 0).astype(np.float32)
