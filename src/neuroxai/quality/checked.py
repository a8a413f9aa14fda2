"""A case together with the result of its check."""

from __future__ import annotations

from dataclasses import replace

from neuroxai.core.errors import CaseError
from neuroxai.data.case import Case
from neuroxai.quality.table import check_case


def checked(case: Case, *, strict: bool = False) -> Case:
    """Return a case with the result of its check, and with alarms first in its warnings.

    Results of a checked case carry the alarms: the warnings of maps and predictions, and the
    sidecars. A case that was checked before is returned as it is.

    Parameters
    ----------
    case
        The study.
    strict
        Raise if there is an alarm.

    Raises
    ------
    CaseError
        If ``strict`` and there is an alarm.

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> case = make_phantom(7, spacing=3.0).case
    >>> swapped = {**case.volumes, "T2": case.volumes["FLAIR"], "FLAIR": case.volumes["T2"]}
    >>> print(checked(replace(case, volumes=swapped)).warnings[0][:58])
    scan alarm: T2 and FLAIR: CSF is bright on FLAIR and not o
    """
    if case.quality is None:
        found = check_case(case)
        case = replace(case, quality=found, warnings=(*found.warnings(), *case.warnings))
    if strict and case.quality is not None and case.quality.alarms:
        raise CaseError(refusal(case))
    return case


def refusal(case: Case) -> str:
    """Return why a checked case with an alarm is refused, one sentence."""
    alarms = case.quality.alarms if case.quality is not None else ()
    reasons = "; ".join(map(str, alarms))
    return f"{case.name}: refused because of --strict: {reasons}"
