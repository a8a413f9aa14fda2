"""Brain tissue maps: the ground truth of a phantom, or a segmentation of the T1 volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.atlas import tissue_priors
from neuroxai.data.bias_field import correct_bias_field
from neuroxai.data.case import Case
from neuroxai.data.case_labels import read_case_labels
from neuroxai.data.placement import Placement

TISSUES = ("CSF", "GM", "WM")
"""Tissue names, in the order of their values 1, 2, 3 in a tissue map."""

PHANTOM_TRUTH = "ground truth of the phantom"
SEGMENTED = "T1 segmentation: N4 bias correction, three Gaussians with the MNI152 prior"
"""Source of the tissue map, as named in reports."""

_MAX_ITERATIONS = 100
_PRIOR_OFFSET = 0.02
"""Added to the prior of every tissue, so that no tissue is excluded by the template."""


def case_tissues(case: Case) -> tuple[NDArray[np.uint8] | None, str | None]:
    """Return the tissue map of a case and its source; None and None without a T1 volume.

    Raises
    ------
    CaseError
        If the tissue file of a phantom is damaged, or the segmentation fails.
    MissingExtraError
        If a segmentation is needed and SimpleITK or nilearn is not installed.
    """
    known = phantom_tissues(case)
    if known is not None:
        return known, PHANTOM_TRUTH
    segmented = segment_tissues(case) if "T1" in case.volumes else None
    return segmented, None if segmented is None else SEGMENTED


def phantom_tissues(case: Case) -> NDArray[np.uint8] | None:
    """Return the ground-truth tissue map of a phantom in a cohort folder; None for other cases.

    Raises
    ------
    CaseError
        If the file is damaged or has a different grid.
    """
    from neuroxai.data.phantom.cohort import TRUTH_FOLDER

    source = next(iter(case.sources.values()), None)
    if source is None:
        return None
    folder = Path(source.path).parent
    for root in (folder.parent, folder.parent.parent):
        path = root / TRUTH_FOLDER / case.name / "tissues.nii.gz"
        if path.is_file():
            return read_case_labels(path, case).astype(np.uint8)
    return None


def segment_tissues(case: Case) -> NDArray[np.uint8] | None:
    r"""Segment the T1 volume into 1 CSF, 2 gray matter, 3 white matter, 0 background.

    N4 corrects the bias field, an affine registration aligns MNI152 with the brain outside the
    tumor, and expectation maximization fits three Gaussians whose weights at voxel v are the
    tissue probabilities :math:`\pi_k(v)` of the template:

    .. math:: k(v) = \arg\max_k \pi_k(v) \, \mathcal{N}(x_v; \mu_k, \sigma_k^2)

    The segmentation has no spatial regularization. It is accurate enough to relate filters to
    tissues, but not for volumetry; ``benchmarks/tissues.py`` measures its accuracy on phantoms.
    The result does not depend on the orientation of the file.

    Returns
    -------
    NDArray or None
        ``(I, J, K)`` uint8; None if the T1 volume is constant.

    Raises
    ------
    CaseError
        If the registration or the mixture model fails.
    MissingExtraError
        If SimpleITK or nilearn is not installed.

    References
    ----------
    Van Leemput et al. 1999, doi:10.1109/42.811270 (mixture model); Tustison et al. 2010,
    doi:10.1109/TMI.2010.2046908 (N4).

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> phantom = make_phantom(7, spacing=3.0)
    >>> segmented, white = segment_tissues(phantom.case), phantom.tissues == 3
    >>> bool((segmented[white] == 3).mean() > 0.7)
    True
    """
    mask = case.brain()
    if case.truth is not None:
        mask &= case.truth == 0
    t1 = case.volumes["T1"]
    if not mask.any() or t1[mask].min() == t1[mask].max():
        return None
    # Work in one orientation, so that rounding does not depend on that of the file.
    upright = Placement.fit(case.shape, case.affine)
    try:
        segmented = _segment(
            upright.reorient(t1), upright.reorient(mask), upright.reoriented_affine
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CaseError(
            f"{case.name}: tissue segmentation of the T1 volume failed ({reason}); give tissue "
            "masks instead, or omit tissues (--no-tissues)"
        ) from error
    return upright.restore_orientation(segmented)


def _segment(
    t1: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.uint8]:
    corrected = correct_bias_field(t1, mask, affine)
    priors = tissue_priors(corrected, mask, affine)[:, mask].astype(np.float64) + _PRIOR_OFFSET
    values = corrected[mask].astype(np.float64)
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
    # Clip bright vessels and rims, which would widen the Gaussian of white matter.
    values = ((values - median) / max(upper - lower, 1e-9)).clip(-6, 6)
    posteriors, means = _fit_gaussians(values, priors / priors.sum(axis=0))
    if not means[0] < means[1] < means[2]:
        raise RuntimeError("the mean intensities do not increase from CSF to gray to white matter")
    segmented = np.zeros(t1.shape, dtype=np.uint8)
    segmented[mask] = posteriors.argmax(axis=0) + 1
    return segmented


def _fit_gaussians(
    values: NDArray[np.float64], priors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit one Gaussian per row of ``priors (3, N)``; return posteriors ``(3, N)`` and means."""
    posteriors, means = priors, np.zeros(len(priors))
    for _ in range(_MAX_ITERATIONS):
        weights = posteriors.sum(axis=1)
        means = posteriors @ values / weights
        squares = (values - means[:, None]) ** 2
        variances = (posteriors * squares).sum(axis=1) / weights + 1e-3
        exponents = squares / (-2 * variances[:, None])
        joint = priors * np.exp(exponents - exponents.max(axis=0)) / np.sqrt(variances[:, None])
        previous, posteriors = posteriors, joint / joint.sum(axis=0)
        if np.abs(posteriors - previous).mean() < 1e-4:
            break
    return posteriors, means
