"""The table of checks, and the check of a case."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from neuroxai.data.case import Case
from neuroxai.data.case_quality import Alarm, CaseQuality, Finding, NotChecked
from neuroxai.quality.alignment import alignment
from neuroxai.quality.coarse import CannotTellError, CoarseCase
from neuroxai.quality.contrast import csf, enhancement
from neuroxai.quality.copies import copies
from neuroxai.quality.extent import cut, dark_band, same_extent, volume
from neuroxai.quality.numbers import numbers


@dataclass(frozen=True)
class Check:
    """One check of a scan.

    Attributes
    ----------
    name
        Short name, as in results.
    title
        What it looks for.
    run
        Yields what it found; raises :class:`CannotTellError` if it cannot tell.
    after
        Checks whose alarm leaves this one without meaning.
    """

    name: str
    title: str
    run: Callable[[CoarseCase], Iterator[Finding]]
    after: tuple[str, ...] = ()


CHECKS = (
    Check("numbers", "spikes, windowed or normalized intensities, label maps, CT", numbers),
    Check("volume", "a head with its skull, or not a whole brain", volume),
    Check("skull", "parts of the skull", dark_band),
    Check("extent", "one sequence cut, shifted or not stripped", same_extent),
    Check("field of view", "a brain cut by the field of view", cut),
    Check("alignment", "one sequence shifted, turned, mirrored or of another brain", alignment),
    Check("copies", "the same image under two names", copies),
    Check("contrast", "T2 under the name of T1, T1ce or FLAIR", csf, ("alignment",)),
    Check(
        "enhancement",
        "T1 and T1ce swapped, or T1ce without contrast agent",
        enhancement,
        ("alignment", "copies", "contrast"),
    ),
)
"""All checks, in the order in which their findings are reported."""


def check_case(case: Case) -> CaseQuality:
    """Check whether a scan is fit to be asked about, without any network.

    Parameters
    ----------
    case
        The study. Checks that need other sequences than it has, or a 3D scan, are listed in
        ``not_checked`` with the reason.

    Returns
    -------
    CaseQuality
        Alarms, notices, and the checks that could not tell.

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> found = check_case(make_phantom(7, spacing=3.0).case)
    >>> found.alarms, found.not_checked
    ((), ())
    """
    started = time.perf_counter()
    answers = run_checks(CoarseCase.of(case))
    return CaseQuality.collect(case.name, answers.items(), time.perf_counter() - started)


def run_checks(
    scan: CoarseCase, only: Collection[str] | None = None
) -> dict[str, list[Finding | NotChecked]]:
    """Run checks in order; return the name of each with what it found.

    Parameters
    ----------
    scan
        The case on a coarse grid.
    only
        Names of the checks; all of them by default.
    """
    answers: dict[str, list[Finding | NotChecked]] = {}
    for check in CHECKS:
        if only is not None and check.name not in only:
            continue
        spoiled = [
            name
            for name in check.after
            if any(isinstance(found, Alarm) for found in answers.get(name, ()))
        ]
        if spoiled:
            reason = f"needs a scan without an alarm of: {', '.join(spoiled)}"
            answers[check.name] = [NotChecked(check.name, reason)]
        else:
            answers[check.name] = _answer(check, scan)
    return answers


def _answer(check: Check, scan: CoarseCase) -> list[Finding | NotChecked]:
    try:
        return list(check.run(scan))
    except CannotTellError as reason:
        return [NotChecked(check.name, str(reason))]
