"""Which tissue lies where in a brain: as a synthetic cohort knows it, or told from the T1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import MissingExtraError
from neuroxai.data.case import Case
from neuroxai.data.case_labels import read_case_labels

TISSUES = ("CSF", "GM", "WM")
"""Tissues of the brain, in the order of their numbers 1, 2, 3 in a tissue file."""

KNOWN, SEGMENTED = "known of the phantom", "a mixture of three Gaussians on T1"
"""Where tissues come from, as reports say it."""

_QUANTILES = 10_000
"""Points of the distribution that a mixture is fitted to, the same however the file is turned."""


def tissues_of(case: Case) -> tuple[NDArray[np.uint8] | None, str | None]:
    """Return the tissues of a case, and where they come from; None without a T1.

    Raises
    ------
    CaseError
        If a file of a synthetic cohort is damaged.
    MissingExtraError
        If they must be segmented, and scikit-learn is not installed.
    """
    known = known_tissues(case)
    if known is not None:
        return known, KNOWN
    found = segment_tissues(case) if "T1" in case.volumes else None
    return found, None if found is None else SEGMENTED


def known_tissues(case: Case) -> NDArray[np.uint8] | None:
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
    """Tell fluid, gray and white matter apart by their brightness on T1, ``(I, J, K)``.

    scikit-learn fits a mixture of three Gaussians to the T1 of the brain without the tumor; from
    dark to bright they are 1 CSF, 2 GM, 3 WM, and 0 is the rest. Neither neighbors nor the coil's
    field are modeled: good enough to ask whether a filter follows a tissue, not to measure one.
    ``benchmarks/tissues.py`` measures it on phantoms.

    Returns
    -------
    NDArray or None
        None where the T1 has one value only.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> phantom = make_phantom(7, spacing=3.0)
    >>> found, white = segment_tissues(phantom.case), phantom.tissues == 3
    >>> bool((found[white] == 3).mean() > 0.7)
    True
    """
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise MissingExtraError("Tissue segmentation", "tissues", "scikit-learn") from error

    within = case.brain()
    if case.truth is not None:
        within &= case.truth == 0
    values = case.volumes["T1"][within].astype(np.float64)
    if not values.size or values.min() == values.max():
        return None
    quarter, middle, rest = np.quantile(values, (0.25, 0.5, 0.75))
    # Vessels and rims are many times as bright as tissue and would claim a Gaussian of their own.
    values = ((values - middle) / max(rest - quarter, 1e-9)).clip(-6, 6)[:, None]
    points = np.quantile(values, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)[:, None]
    # About the shares of fluid, gray and white matter in a skull-stripped brain.
    starts = np.quantile(values, (0.08, 0.35, 0.80))[:, None]
    mixture = GaussianMixture(
        len(TISSUES), means_init=starts, reg_covar=1e-3, max_iter=200, random_state=0
    ).fit(points)
    number = np.empty(len(TISSUES), dtype=np.uint8)
    number[np.argsort(mixture.means_[:, 0])] = range(1, len(TISSUES) + 1)
    tissues = np.zeros(case.shape, dtype=np.uint8)
    tissues[within] = number[mixture.predict(values)]
    return tissues
