"""Which tissue lies where in a brain: as a synthetic cohort knows it, or told from the T1."""

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
"""Tissues of the brain, in the order of their numbers 1, 2, 3 in a tissue file."""

KNOWN = "known of the phantom"
SEGMENTED = "T1 without its bias field, three Gaussians, MNI152 as prior"
"""Where tissues come from, as reports say it."""

_STEPS = 100
_DOUBT = 0.02
"""Added to every share of the prior: the average brain rules nothing out."""


def case_tissues(case: Case) -> tuple[NDArray[np.uint8] | None, str | None]:
    """Return the tissues of a case, and where they come from; None without a T1.

    Raises
    ------
    CaseError
        If a file of a synthetic cohort is damaged, or the tissues cannot be told.
    MissingExtraError
        If they must be segmented, and SimpleITK or nilearn is not installed.
    """
    known = phantom_tissues(case)
    if known is not None:
        return known, KNOWN
    found = segment_tissues(case) if "T1" in case.volumes else None
    return found, None if found is None else SEGMENTED


def phantom_tissues(case: Case) -> NDArray[np.uint8] | None:
    """Return the tissues of a synthetic case, as its cohort knows them; None for any other.

    Raises
    ------
    CaseError
        If the file is damaged or lies on another grid.
    """
    from neuroxai.data.phantom.cohort import KNOWN as FOLDER

    source = next(iter(case.sources.values()), None)
    if source is None:
        return None
    folder = Path(source.path).parent
    for root in (folder.parent, folder.parent.parent):
        path = root / FOLDER / case.name / "tissues.nii.gz"
        if path.is_file():
            return read_case_labels(path, case).astype(np.uint8)
    return None


def segment_tissues(case: Case) -> NDArray[np.uint8] | None:
    r"""Tell fluid, gray and white matter apart on T1, ``(I, J, K)``: 1 CSF, 2 GM, 3 WM, 0 the rest.

    N4 takes out the coil's uneven brightness, an affine transform lays MNI152 on the brain without
    its tumor, and expectation maximization fits three Gaussians whose shares at voxel v are the
    template's, :math:`\pi_k(v)`:

    .. math:: k(v) = \arg\max_k \pi_k(v) \, \mathcal{N}(x_v; \mu_k, \sigma_k^2)

    Good enough to ask whether a filter follows a tissue, not to measure one: neighbors are not
    modeled. ``benchmarks/tissues.py`` measures it on phantoms. A pure function of the case, the
    same however its file is turned.

    Returns
    -------
    NDArray or None
        None where the T1 has one value only.

    Raises
    ------
    CaseError
        If the brain and the template do not come together.
    MissingExtraError
        If SimpleITK or nilearn is not installed.

    References
    ----------
    Van Leemput et al. 1999, doi:10.1109/42.811270 (the model); Tustison et al. 2010,
    doi:10.1109/TMI.2010.2046908 (N4).

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> phantom = make_phantom(7, spacing=3.0)
    >>> found, white = segment_tissues(phantom.case), phantom.tissues == 3
    >>> bool((found[white] == 3).mean() > 0.7)
    True
    """
    within = case.brain()
    if case.truth is not None:
        within &= case.truth == 0
    t1 = case.volumes["T1"]
    if not within.any() or t1[within].min() == t1[within].max():
        return None
    # All steps see one orientation, so that rounding is the same however the file is turned.
    upright = Placement.fit(case.shape, case.affine)
    try:
        found = _segment(upright.turn(t1), upright.turn(within), upright.turned_affine)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CaseError(
            f"{case.name}: its tissues cannot be told from the T1 ({reason}); give them as masks, "
            "or leave them out (--no-tissues)"
        ) from error
    return upright.turn_back(found)


def _segment(
    t1: NDArray[np.float32], within: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.uint8]:
    even = correct_bias_field(t1, within, affine)
    priors = tissue_priors(even, within, affine)[:, within].astype(np.float64) + _DOUBT
    values = even[within].astype(np.float64)
    quarter, middle, rest = np.quantile(values, (0.25, 0.5, 0.75))
    # Vessels and rims are many times as bright as tissue and would widen its Gaussian.
    values = ((values - middle) / max(rest - quarter, 1e-9)).clip(-6, 6)
    shares, means = _three_gaussians(values, priors / priors.sum(axis=0))
    if not means[0] < means[1] < means[2]:
        raise RuntimeError("fluid, gray and white matter do not follow from dark to bright")
    found = np.zeros(t1.shape, dtype=np.uint8)
    found[within] = shares.argmax(axis=0) + 1
    return found


def _three_gaussians(
    values: NDArray[np.float64], priors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a Gaussian for each row of ``priors (3, N)``; return the shares ``(3, N)`` and means."""
    shares, means = priors, np.zeros(len(priors))
    for _ in range(_STEPS):
        weights = shares.sum(axis=1)
        means = shares @ values / weights
        squares = (values - means[:, None]) ** 2
        variances = (shares * squares).sum(axis=1) / weights + 1e-3
        scaled = squares / (-2 * variances[:, None])
        likely = priors * np.exp(scaled - scaled.max(axis=0)) / np.sqrt(variances[:, None])
        before, shares = shares, likely / likely.sum(axis=0)
        if np.abs(shares - before).mean() < 1e-4:
            break
    return shares, means
