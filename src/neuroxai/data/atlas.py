"""Tissue priors of a patient's brain from the MNI152 template, by affine registration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.itk_image import downsample, itk_array, itk_image, load_itk
from neuroxai.data.template import load_mni152

_BLUR = 4.0
"""Smoothing of the priors in mm (standard deviation): an affine transform does not align gyri."""

_COARSE, _FINE = 6.0, 3.0
"""Voxel sizes in mm of the two resolution levels of the registration."""


def tissue_priors(
    t1: NDArray[np.float32], brain_mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return priors ``(3, I, J, K)`` of CSF, gray and white matter, with MNI152 registered to a T1.

    The affine transform maximizes the mutual information of the two images, starting from
    aligned moments of the brain masks.

    Parameters
    ----------
    t1
        ``(I, J, K)``, skull-stripped.
    brain_mask
        ``(I, J, K)``, the brain without the tumor.
    affine
        ``(4, 4)``, voxel index to mm in RAS+.

    Raises
    ------
    MissingExtraError
        If SimpleITK or nilearn is not installed.
    RuntimeError
        If the registration fails.

    References
    ----------
    Mattes et al. 2003, doi:10.1109/TMI.2003.809072 (mutual information)
    """
    itk = load_itk()
    template = load_mni152(2, "Tissue segmentation", "tissues")
    inside = template.t1 > 0.05  # the template is scaled to 0...1 and zero outside the brain
    fixed, mask = itk_image(t1, affine), itk_image(brain_mask, affine)
    moving = itk_image(template.t1, template.affine)
    start = itk.CenteredTransformInitializer(
        mask,
        itk_image(inside, template.affine),
        itk.AffineTransform(3),
        itk.CenteredTransformInitializerFilter.MOMENTS,
    )
    transform = start
    for voxel in (_COARSE, _FINE):
        coarse = downsample(_smooth(fixed, voxel / 2), voxel)
        transform = _register(coarse, downsample(mask, voxel), moving, transform)
    csf = np.clip(inside - template.gray - template.white, 0, 1)
    priors = (csf, template.gray, template.white)
    smooth = (_smooth(itk_image(prior, template.affine), _BLUR) for prior in priors)
    return np.stack([
        itk_array(itk.Resample(each, fixed, transform, itk.sitkLinear, 0.0)) for each in smooth
    ])  # fmt: skip


def _smooth(image: Any, sigma: float) -> Any:
    return load_itk().SmoothingRecursiveGaussian(image, sigma)


def _register(fixed: Any, mask: Any, moving: Any, start: Any) -> Any:
    itk = load_itk()
    registration = itk.ImageRegistrationMethod()
    # A single thread and all voxels, so that the result is reproducible.
    registration.SetNumberOfWorkUnits(1)
    registration.SetMetricAsMattesMutualInformation(32)
    registration.SetMetricSamplingStrategy(registration.NONE)
    registration.SetMetricFixedMask(mask)
    registration.SetInterpolator(itk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 200, relaxationFactor=0.6)
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetInitialTransform(start, inPlace=False)
    return registration.Execute(fixed, moving)
