"""The checks of a scan: false alarms, planted faults that are found, and seconds.

python benchmarks/quality.py [--typical N] [--faulty N] [--wide N] [--folder F] [--workers N]
    [--write]

Phantoms of 2 mm from seeds that set no threshold; real scans below NEUROXAI_SHARED, if it is set.
With --write, the counts replace benchmarks/results/quality.json, from which report.py makes the
tables of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from measure import RESULTS, machine
from quality_faults import FAULTS, VARIANTS, Fault, planted
from quality_tables import tables

from neuroxai.core.workers import in_workers
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.data.case_quality import Alarm, CaseQuality, NotChecked, Notice
from neuroxai.data.phantom import write_cohort
from neuroxai.quality import check_case
from neuroxai.quality.coarse import CoarseCase
from neuroxai.quality.table import run_checks

FIRST_SEED, FIRST_WIDE_SEED = 7000, 5700
REAL = ("brats2018/*", "brats2023/*", "metastasis/*")
BAR = 0.95
"""Least share of each planted fault that has to be found in typical phantoms."""
SECONDS = 4.0
"""Longest time of a 1 mm case on one core."""


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


def summarize(kind: str, found: Iterable[Measured]) -> dict[str, Any]:
    """Return the counts of a cohort, ready for JSON; each case is printed when it is done."""
    cases: list[Measured] = []
    for each in found:
        cases.append(each)
        missed = ", ".join(name for name, caught in each.caught.items() if not caught)
        print(
            f"{each.name}: {'; '.join(map(str, each.right.alarms)) or 'no alarm'}; missed: "
            f"{missed or 'none'}; {dict(each.variants)}", file=sys.stderr, flush=True,
        )  # fmt: skip
    faults, variants = [], []
    for fault in FAULTS:
        answers = [case.caught[fault.name] for case in cases if fault.name in case.caught]
        if answers:
            faults.append({
                "fault": fault.name, "checks": list(fault.checks), "caught": sum(answers),
                "of": len(answers), "bar": BAR if fault.bar and kind == "typical" else None,
            })  # fmt: skip
    for name in VARIANTS:
        several = [case.variants[name] for case in cases if name in case.variants]
        if several:
            checks = Counter(check for found in several for check in found)
            variants.append({
                "variant": name, "alarmed": sum(map(bool, several)), "of": len(several),
                "checks": dict(checks),
            })  # fmt: skip
    seconds = [each.seconds for each in cases]
    return {
        "kind": kind,
        "cases": len(cases),
        "voxels": max(each.voxels for each in cases),
        "alarmed": {
            each.name: "; ".join(map(str, each.right.alarms))
            for each in cases if each.right.alarms
        },
        "alarms": dict(Counter(a.check for each in cases for a in each.right.alarms)),
        "notices": dict(Counter(n.check for each in cases for n in each.right.notices)),
        "seconds": {
            "median": round(float(np.median(seconds)), 2), "largest": round(max(seconds), 2),
        },
        "faults": faults,
        "variants": variants,
    }  # fmt: skip


def is_met(found: dict[str, Any]) -> bool:
    """Return whether the bars are met; wide phantoms have none."""
    right = found["kind"] == "wide" or not found["alarmed"]
    caught = all(row["bar"] is None or row["caught"] >= row["bar"] * row["of"]
                 for row in found["faults"])  # fmt: skip
    fast = found["kind"] != "real" or found["seconds"]["largest"] <= SECONDS
    return right and caught and fast


def main() -> None:
    """Measure all cohorts; exit with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--typical", type=int, default=150)
    parser.add_argument("--faulty", type=int, default=60, help="phantoms with planted faults")
    parser.add_argument("--wide", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where phantoms are kept for the next run")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="replace the stored result")
    given = parser.parse_args()
    cohorts, jobs = [], real()
    if jobs:
        cohorts.append(summarize("real", in_workers(measure, jobs, given.workers)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for kind, count in (("typical", given.typical), ("wide", given.wide)):
            if count:
                jobs = cohort(folder, count, wide=kind == "wide", faulty=given.faulty)
                cohorts.append(summarize(kind, in_workers(measure, jobs, given.workers)))
    print("\n".join(map(tables, cohorts)))
    if given.write:
        content = {"script": "quality", "cohorts": cohorts, **machine()}
        (RESULTS / "quality.json").write_text(json.dumps(content, indent=1) + "\n")
    met = all(map(is_met, cohorts))
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
