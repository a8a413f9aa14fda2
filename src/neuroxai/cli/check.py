"""``neuroxai check``: whether a scan is fit to be asked about; no network is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuroxai.cli import checks, options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.pairs import parse_files
from neuroxai.cli.panels import result_option
from neuroxai.data.case_files import found_modalities, is_picture

if TYPE_CHECKING:
    from pathlib import Path

    from neuroxai.data.case import Case
    from neuroxai.data.case_quality import CaseQuality

ALARM, NOTICE = 3, 4
"""Exit codes; 1 is an error, 2 a wrong option."""

Strict = Annotated[
    bool, result_option("--strict", help="Exit with code 4 if there are notices but no alarm.")
]


def check(
    case: options.CasePath = None,
    file: options.File = None,
    layout: options.LayoutName = None,
    resample_to: options.ResampleTo = None,
    strict: Strict = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Check a scan for faults that mislead a network: skull, swapped or shifted sequences.

    Exits with 3 if there is an alarm. Research use only, not for clinical use.
    """
    checks.check_case(case, file, layout)
    study = _read(case, file, layout, resample_to)

    from neuroxai.quality import check_case

    found = check_case(study)
    if as_json:
        result = {"case": study.name, **found.describe()}
        Output(as_json=True).print_json("check", result, warnings=list(study.warnings))
    else:
        _print(study, found, quiet=quiet)
    if found.alarms:
        raise typer.Exit(ALARM)
    if strict and found.notices:
        raise typer.Exit(NOTICE)


def _read(
    case: Path | None, file: list[str] | None, layout: str | None, resample_to: str | None
) -> Case:
    from neuroxai.cli.case import name_file_option
    from neuroxai.core.errors import CaseError
    from neuroxai.data.brats import read_case

    if case is not None and is_picture(case):
        from neuroxai.data.pictures import read_picture

        return read_picture(case, (224, 224))
    files = parse_files(file) or None
    try:
        modalities = found_modalities(case, files)
        return read_case(
            case, modalities=modalities, files=files, layout=layout, resample_to=resample_to
        )
    except CaseError as error:
        raise CaseError(name_file_option(str(error))) from error


def _print(study: Case, found: CaseQuality, *, quiet: bool) -> None:
    """Print alarms and notices; without ``quiet``, also what was and was not checked."""
    from rich import box
    from rich.table import Table

    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.quality import CHECKS

    console = plain()
    for alarm in found.alarms:
        console.print(f"ALARM: {alarm}.", soft_wrap=True)
    for notice in found.notices:
        console.print(f"Notice: {notice}.", soft_wrap=True)
    if quiet:
        return
    reasons = {each.check: each.reason for each in found.not_checked}
    results = {each.check: "notice" for each in found.notices}
    results |= {each.check: "ALARM" for each in found.alarms}
    table = Table(
        title=f"{study.name}: {', '.join(study.volumes)}", title_justify="left", box=box.SIMPLE
    )
    for heading in ("Check", "Looks for", "Result"):
        table.add_column(heading, overflow="fold")
    for each in CHECKS:
        reason = reasons.get(each.name)
        nothing = "passed" if reason is None else f"not checked: {reason}"
        table.add_row(each.name, each.title, results.get(each.name, nothing))
    console.print(table)
    for warning in study.warnings:
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print(
        "A scan that passes can still be unfit: a mirrored scan, T1 and T1ce swapped without "
        "enhancement, or four images of something else are not detected.",
        soft_wrap=True,
    )
    console.print(NOT_FOR_CLINICAL_USE)
