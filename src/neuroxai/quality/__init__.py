"""Checks of a scan before a network is asked about it."""

from neuroxai.data.case_quality import Alarm, CaseQuality, Finding, NotChecked, Notice
from neuroxai.quality.checked import checked, refusal
from neuroxai.quality.table import CHECKS, check_case

__all__ = [
    "CHECKS",
    "Alarm",
    "CaseQuality",
    "Finding",
    "NotChecked",
    "Notice",
    "check_case",
    "checked",
    "refusal",
]
