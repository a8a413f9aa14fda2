"""Sequences under each other's names, and a T1ce without contrast agent.

Cerebrospinal fluid (CSF) is bright on T2 and dark on T1, T1ce and FLAIR: where the ranks of three
sequences are lowest together, the fourth is T2 if it is brightest there. T1ce differs from T1 by
its enhancing vessels and tumor: bright voxels that the other sequences do not predict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.vocabulary import MODALITIES
from neuroxai.data.case_quality import Alarm, Finding, Notice
from neuroxai.quality.coarse import CannotTellError, CoarseCase
from neuroxai.quality.extent import require_brain

_CSF = 0.025  # fraction of the brain, the ventricles and deep sulci
_MARGIN = 0.3
"""Difference of mean normal ranks; correct names give 0.6 and more, swapped ones as much."""
_ORDER = -0.2
"""Difference of asymmetries; with correct names it is 0.4 or more, swapping changes its sign."""
_ENHANCEMENT = 5.5
"""Deviations; Gaussian residuals have 3.1. Some tumors of low grade are below it too."""
_MOST = 60_000  # voxels of the fit


def csf(scan: CoarseCase) -> Iterator[Finding]:
    """Find T2 under the name of T1, T1ce or FLAIR, by the brightness of CSF."""
    scan.require(*MODALITIES)
    require_brain(scan)
    brightness = csf_brightness({name: scan.gauss_ranks[name] for name in MODALITIES})
    top = max(brightness, key=lambda name: brightness[name])
    margin = brightness[top] - brightness["T2"]
    if margin > 0:
        kind = Alarm if margin > _MARGIN else Notice
        yield kind(
            "contrast", ("T2", top), f"CSF is bright on {top} and not on T2, as if the files were "
            "swapped", "difference of the mean normal ranks", margin, 0, "",
            "check which file is which sequence",
        )  # fmt: skip


def csf_brightness(ranks: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Return each sequence's mean rank where the ranks of the others are lowest together."""
    total = np.sum(list(ranks.values()), axis=0)
    count = max(1, int(_CSF * total.size))
    return {
        name: float(own[np.argpartition(total - own, count)[:count]].mean())
        for name, own in ranks.items()
    }


def enhancement(scan: CoarseCase) -> Iterator[Finding]:
    """Find T1 and T1ce under each other's names, and a T1ce without contrast agent."""
    scan.require(*MODALITIES)
    require_brain(scan)
    asymmetry, tail = zip(*(unexplained(scan, name) for name in ("T1", "T1ce")), strict=True)
    order = asymmetry[1] - asymmetry[0]
    if order < _ORDER:
        yield Alarm(
            "enhancement", ("T1", "T1ce"), "T1 has bright voxels that the other sequences do not "
            "explain, and T1ce does not, as if the files were swapped",
            "difference of the logarithmic asymmetries", order, _ORDER, "",
            "check which file is which sequence",
        )  # fmt: skip
    elif tail[1] < _ENHANCEMENT:
        yield Notice(
            "enhancement", ("T1ce",), "shows little contrast agent, neither in vessels nor in a "
            "tumor", "brightest unexplained voxels over their deviation", tail[1], _ENHANCEMENT,
            "", "check that contrast agent was given; tumors of low grade may not enhance",
        )  # fmt: skip


def unexplained(scan: CoarseCase, name: str) -> tuple[float, float]:
    r"""Return two figures of what the other sequences do not explain of one.

    The values are fitted by a quadratic of the normal ranks of the other three sequences and of
    the position, with iteratively reweighted least squares. Of the residuals :math:`r`, the first
    figure is :math:`\ln(q_{99.9} / -q_{0.1})`, the second :math:`q_{99.9}` over their deviation.
    """
    values = scan.sequences[name].image[scan.deep].astype(np.float64)
    others = [scan.gauss_ranks[other] for other in MODALITIES if other != name]
    place = [np.where(scan.deep)[axis] / n - 0.5 for axis, n in enumerate(scan.shape)]
    features: list[NDArray[Any]] = [np.ones(values.size), *others, *place]
    features += [a * b for i, a in enumerate(others) for b in others[i:]]
    features += [a * b for i, a in enumerate(place) for b in place[i:]]
    table = np.stack(features, axis=1).astype(np.float64)
    some = slice(None, None, max(1, values.size // _MOST))
    x, y = table[some], values[some]
    weights = np.ones(y.size)
    coefficients: NDArray[Any] = np.zeros(x.shape[1])
    for _ in range(6):
        weighted = x.T * weights
        # Normal equations: the features have similar scales, and least squares takes ten times as
        # long. The pseudo-inverse leaves out a feature that is constant or a copy of another.
        coefficients = np.linalg.pinv(weighted @ x, hermitian=True) @ (weighted @ y)
        residual = y - x @ coefficients
        scale = _deviation(residual)
        if not scale:
            raise CannotTellError(f"needs another image; the other sequences explain all of {name}")
        weights = 1 / (1 + (residual / (2 * scale)) ** 2)  # Cauchy
    residual = values - table @ coefficients
    low, high = np.quantile(residual, (0.001, 0.999))
    if low >= 0 or high <= 0:
        raise CannotTellError(f"needs residuals of both signs; those of {name} have one")
    return float(np.log(high / -low)), float(high / _deviation(residual))


def _deviation(values: NDArray[np.float64]) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
