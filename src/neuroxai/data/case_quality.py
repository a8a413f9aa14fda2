"""What a check of a scan found: alarms, notices, and checks that could not tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One figure of a scan that is outside its usual range.

    Attributes
    ----------
    check
        Name of the check, for example ``skull``.
    sequences
        Sequences it concerns; empty if it concerns all of them together.
    problem
        What is wrong, a sentence without its end.
    quantity
        What was measured.
    value
        The measured number.
    threshold
        The limit that it exceeds or falls below.
    unit
        Unit of both numbers, for example ``mm``; empty for ratios.
    remedy
        What to do, a sentence without its end.

    Examples
    --------
    >>> print(Alarm("skull", ("T1",), "the scan shows the skull", "volume", 2.9, 2.2, "l",
    ...             remedy="strip the skull"))
    T1: the scan shows the skull (volume 2.9 l, limit 2.2 l); strip the skull
    """

    check: str
    sequences: tuple[str, ...]
    problem: str
    quantity: str
    value: float
    threshold: float
    unit: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        subject = f"{' and '.join(self.sequences)}: " if self.sequences else ""
        unit = f" {self.unit}" if self.unit not in ("", "%") else self.unit
        numbers = f"{self.quantity} {self.value:.3g}{unit}, limit {self.threshold:.3g}{unit}"
        return f"{subject}{self.problem} ({numbers}); {self.remedy}"

    def describe(self) -> dict[str, Any]:
        """Return the finding, ready for JSON."""
        return {
            "check": self.check,
            "sequences": list(self.sequences),
            "problem": self.problem,
            "quantity": self.quantity,
            "value": self.value,
            "threshold": self.threshold,
            "unit": self.unit,
            "remedy": self.remedy,
            "text": str(self),
        }


class Alarm(Finding):
    """A fault: results on this scan cannot be trusted."""


class Notice(Finding):
    """A sign of a fault that right scans show too; worth a look."""


@dataclass(frozen=True)
class NotChecked:
    """A check that cannot tell, with the reason."""

    check: str
    reason: str

    def __str__(self) -> str:
        return f"{self.check}: not checked: {self.reason}"


@dataclass(frozen=True)
class CaseQuality:
    """Result of :func:`neuroxai.quality.check_case`.

    Attributes
    ----------
    case
        Name of the case.
    alarms, notices
        Findings, in the order of the checks.
    not_checked
        Checks that could not tell.
    passed
        Names of the checks that found nothing.
    seconds
        Time of the check.
    """

    case: str
    alarms: tuple[Alarm, ...] = ()
    notices: tuple[Notice, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()
    passed: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def collect(
        cls, case: str, answers: Iterable[tuple[str, list[Finding | NotChecked]]], seconds: float
    ) -> CaseQuality:
        """Sort the answers of all checks, given as pairs of name and findings."""
        answers = list(answers)
        found = [each for _, several in answers for each in several]
        return cls(
            case,
            tuple(each for each in found if isinstance(each, Alarm)),
            tuple(each for each in found if isinstance(each, Notice)),
            tuple(each for each in found if isinstance(each, NotChecked)),
            tuple(name for name, several in answers if not several),
            seconds,
        )

    def alarm_lines(self) -> list[str]:
        """Return the alarms as lines that are printed first."""
        return [f"ALARM: {alarm}." for alarm in self.alarms]

    def summary(self) -> str:
        """Return the checks with an alarm and their sequences, for a line under a figure.

        Examples
        --------
        >>> alarm = Alarm("extent", ("T1", "T2"), "is cut", "Dice", 0.8, 0.9)
        >>> CaseQuality("case", (alarm,)).summary()
        'extent (T1, T2)'
        """
        return "; ".join(
            f"{alarm.check} ({', '.join(alarm.sequences)})" if alarm.sequences else alarm.check
            for alarm in self.alarms
        )

    def warnings(self) -> tuple[str, ...]:
        """Return alarms, then notices, one sentence each, for the warnings of a result."""
        return (
            *(f"scan alarm: {alarm}" for alarm in self.alarms),
            *(f"scan notice: {notice}" for notice in self.notices),
        )

    def describe(self) -> dict[str, Any]:
        """Return the result, ready for JSON."""
        return {
            "alarms": [alarm.describe() for alarm in self.alarms],
            "notices": [notice.describe() for notice in self.notices],
            "not_checked": {each.check: each.reason for each in self.not_checked},
            "passed": list(self.passed),
            "seconds": round(self.seconds, 3),
        }
