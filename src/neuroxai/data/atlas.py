"""What an average brain says of every voxel of a patient's: the shares of its tissues."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.itk_image import downsample, itk_array, itk_image, load_itk
from neuroxai.data.template import load_mni152

_BLUR = 4.0
"""Standard deviation in mm that the shares are smoothed by: no affine transform makes gyri meet."""

_COARSE, _FINE = 6.0, 3.0
"""Voxels in mm on which brains are laid on each other, one after the other."""


def tissue_priors(
    t1: NDArray[np.float32], within: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Lay MNI152 on a T1 and return its shares of CSF, gray and white matter, ``(3, I, J, K)``.

    An affine transform with the greatest mutual information of both images, begun where their
    brains' moments agree.

    Parameters
    ----------
    t1
        ``(I, J, K)``, skull-stripped.
    within
        ``(I, J, K)``: voxels that count, the brain without its tumor.
    affine
        ``(4, 4)``, voxel index to mm in RAS+.

    Raises
    ------
    MissingExtraError
        If SimpleITK or nilearn is not installed.
    RuntimeError
        If the two brains cannot be laid on each other.

    References
    ----------
    Mattes et al. 2003, doi:10.1109/TMI.2003.809072 (the measure of alignment)
    """
    itk = load_itk()
    brain = load_mni152(2, "Tissue segmentation", "tissues")
    inside = brain.t1 > 0.05
    fixed, mask = itk_image(t1, affine), itk_image(within, affine)
    moving = itk_image(brain.t1, brain.affine)
    start = itk.CenteredTransformInitializer(
        mask,
        itk_image(inside, brain.affine),
        itk.AffineTransform(3),
        itk.CenteredTransformInitializerFilter.MOMENTS,
    )
    transform = start
    for voxel in (_COARSE, _FINE):
        coarse = downsample(_smooth(fixed, voxel / 2), voxel)
        transform = _aligned(coarse, downsample(mask, voxel), moving, transform)
    shares = [np.clip(inside - brain.gray - brain.white, 0, 1), brain.gray, brain.white]
    smooth = (_smooth(itk_image(share, brain.affine), _BLUR) for share in shares)
    return np.stack([
        itk_array(itk.Resample(each, fixed, transform, itk.sitkLinear, 0.0)) for each in smooth
    ])  # fmt: skip


def _smooth(image: Any, sigma: float) -> Any:
    return load_itk().SmoothingRecursiveGaussian(image, sigma)


def _aligned(fixed: Any, mask: Any, moving: Any, start: Any) -> Any:
    itk = load_itk()
    search = itk.ImageRegistrationMethod()
    # One thread and every voxel: the same answer every time.
    search.SetNumberOfWorkUnits(1)
    search.SetMetricAsMattesMutualInformation(32)
    search.SetMetricSamplingStrategy(search.NONE)
    search.SetMetricFixedMask(mask)
    search.SetInterpolator(itk.sitkLinear)
    search.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 200, relaxationFactor=0.6)
    search.SetOptimizerScalesFromPhysicalShift()
    search.SetInitialTransform(start, inPlace=False)
    return search.Execute(fixed, moving)
