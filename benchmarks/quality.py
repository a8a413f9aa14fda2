"""The checks of a scan: false alarms, planted faults that are found, and seconds.

python benchmarks/quality.py [--typical N] [--faulty N] [--wide N] [--folder F] [--workers N]

Phantoms of 2 mm from seeds that set no threshold; real scans below NEUROXAI_SHARED, if it is set.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from quality_faults import FAULTS, VARIANTS, Fault, planted

from neuroxai.core.workers import in_workers
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.data.case_quality import Alarm, CaseQuality, NotChecked, Notice
from neuroxai.data.phantom import write_cohort
from neuroxai.quality import check_case
from neuroxai.quality.coarse import CoarseCase
from neuroxai.quality.table import run_checks

FIRST_SEED, FIRST_WIDE_SEED = 6000, 5000
REAL = ("brats2018/*", "brats2023/*", "metastasis/*")
BAR = 0.95


@dataclass(frozen=True)
class Job:
    """One case to measure, and another patient's case."""

    folder: str
    stranger: str
    seed: int
    faults: bool


@dataclass
class Measured:
    """What was measured on one case."""

    name: str
    seconds: float
    voxels: int
    right: CaseQuality
    caught: dict[str, bool] = field(default_factory=dict)
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict)


def measure(job: Job) -> Measured:
    """Check a right case, its hard variants, and each planted fault."""
    case = read_case(job.folder)
    started = time.process_time()
    right = check_case(case)
    seconds = time.process_time() - started
    found = Measured(case.name, seconds, int(np.prod(case.shape)), right)
    if not job.faults:
        return found
    stranger = read_case(job.stranger)
    scan = CoarseCase.of(case)
    for number, fault in enumerate(FAULTS):
        caught = _caught(fault, case, scan, stranger, np.random.default_rng([job.seed, number]))
        if caught is not None:
            found.caught[fault.name] = caught
    for name, change in VARIANTS.items():
        made = change(case, np.random.default_rng([job.seed, 99]))
        found.variants[name] = tuple(dict.fromkeys(a.check for a in check_case(made).alarms))
    return found


def _caught(
    fault: Fault, case: Case, scan: CoarseCase, stranger: Case, random: np.random.Generator
) -> bool | None:
    """Return whether a planted fault is found, in the right sequence; None if it does not suit."""
    changed = fault.plant(case, random, stranger)
    if changed is None:
        return None
    made = planted(case, changed)
    # Only the changed sequences are averaged again; the result is the same.
    part = CoarseCase.of(dataclasses.replace(made, volumes={n: made.volumes[n] for n in changed}))
    faulty = dataclasses.replace(scan, sequences={**scan.sequences, **part.sequences})
    kind = Notice if "notice" in fault.name else Alarm
    return any(
        isinstance(each, kind) and (fault.whole or bool(set(each.sequences) & set(changed)))
        for several in run_checks(faulty, fault.checks).values()
        for each in several
        if not isinstance(each, NotChecked)
    )


def cohort(folder: Path, count: int, *, wide: bool, faulty: int) -> list[Job]:
    """Return the jobs of phantoms, which are made if the folder does not have them."""
    first = FIRST_WIDE_SEED if wide else FIRST_SEED
    seeds = range(first, first + count)
    cases = write_cohort(folder / ("wide" if wide else "typical"), seeds, spacing=2.0, wide=wide)
    return [
        Job(str(case), str(cases[number - 1]), seed, number < faulty)
        for number, (seed, case) in enumerate(zip(seeds, cases, strict=True))
    ]


def real() -> list[Job]:
    """Return the jobs of real scans; none, with a message, without them."""
    shared = os.environ.get("NEUROXAI_SHARED")
    if not shared:
        print("SKIPPED: real scans; set NEUROXAI_SHARED to a folder that has them")
        return []
    cases = sorted(path for name in REAL for path in Path(shared, "data").glob(name))
    if not cases:
        print(f"SKIPPED: real scans; none found in {shared}/data")
    return [
        Job(str(case), str(cases[number - 1]), number, faults=True)
        for number, case in enumerate(cases)
    ]


def report(kind: str, found: Iterable[Measured]) -> bool:
    """Print the table of a cohort; return whether the bars are met."""
    cases: list[Measured] = []
    for each in found:
        cases.append(each)
        missed = ", ".join(name for name, caught in each.caught.items() if not caught)
        print(
            f"{each.name}: {'; '.join(map(str, each.right.alarms)) or 'no alarm'}; missed: "
            f"{missed or 'none'}; {dict(each.variants)}", file=sys.stderr, flush=True,
        )  # fmt: skip
    if not cases:
        return True
    seconds = [each.seconds for each in cases]
    alarmed = [each for each in cases if each.right.alarms]
    print(f"\n## {kind}: {len(cases)} right cases of {max(c.voxels for c in cases):,} voxels")
    print(f"\nCases with an alarm: {len(alarmed)}.")
    for each in alarmed:
        print(f"- {each.name}: {'; '.join(map(str, each.right.alarms))}")
    notices = Counter(notice.check for each in cases for notice in each.right.notices)
    print(f"Cases with a notice: {dict(notices) or 'none'}.")
    print(f"Seconds on one core: median {np.median(seconds):.1f}, largest {max(seconds):.1f}.\n")
    met = not (alarmed and kind != "wide")
    print("| planted fault | checks | caught |\n| --- | --- | --- |")
    for fault in FAULTS:
        answers = [case.caught[fault.name] for case in cases if fault.name in case.caught]
        if answers:
            short = fault.bar and kind == "typical" and np.mean(answers) < BAR
            met &= not short
            row = f"{sum(answers)} of {len(answers)}{' (below the bar)' if short else ''}"
            print(f"| {fault.name} | {', '.join(fault.checks)} | {row} |")
    print("\n| right case | with an alarm | of |\n| --- | --- | --- |")
    for name in VARIANTS:
        several = [case.variants[name] for case in cases if name in case.variants]
        if several:
            checks = Counter(check for found in several for check in found)
            by_check = ", ".join(f"{check} {count}" for check, count in checks.items())
            print(f"| {name} | {sum(map(bool, several))} of {len(several)} | {by_check} |")
    sys.stdout.flush()
    return met


def main() -> None:
    """Measure all cohorts; exit with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--typical", type=int, default=150)
    parser.add_argument("--faulty", type=int, default=60, help="phantoms with planted faults")
    parser.add_argument("--wide", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where phantoms are kept for the next run")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    met = report("real", in_workers(measure, real(), given.workers))
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for kind, count in (("typical", given.typical), ("wide", given.wide)):
            jobs = cohort(folder, count, wide=kind == "wide", faulty=given.faulty) if count else []
            met &= report(kind, in_workers(measure, jobs, given.workers))
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
