"""CPU seconds until the command line refuses a wrong option, path or header, or prints a list.

python benchmarks/cli_start.py [--rounds 5]

CPU time (user and system) of the whole process, the median of several rounds after one that fills
the bytecode cache. The bars are 0.5 s, and 0.8 s for headers, which NumPy and nibabel decode.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from measure import Row, Table

COMMAND = Path(sys.executable).parent / "neuroxai"
NAMES = ("t1", "t1ce", "t2", "flair")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    table = Table("cli_start")
    with tempfile.TemporaryDirectory() as place:
        case, truncated = write_cases(Path(place))
        for what, arguments, bar in commands(str(case), str(truncated)):
            seconds = [cpu_seconds(arguments) for _ in range(rounds + 1)][1:]
            spread = f"{min(seconds):.2f} to {max(seconds):.2f} s, {rounds} rounds"
            table.add(Row(what, "bar", statistics.median(seconds), bar, bar=1.0, detail=spread))
    table.write()


def commands(case: str, truncated: str) -> list[tuple[str, list[str], float]]:
    """Return a description, the arguments and the bar in CPU seconds of every command."""
    return [
        ("case folder that does not exist", ["explain", "/no/such/folder"], 0.5),
        ("cohort folder that does not exist", ["evaluate", "/no/such/folder"], 0.5),
        ("model that does not exist", ["explain", case, "--model", "/no/such"], 0.5),
        ("unknown device", ["explain", case, "--device", "gpu"], 0.5),
        ("unknown restriction", ["explain", case, "--within", "nonsense"], 0.5),
        ("unknown method", ["explain", case, "--method", "gradcam"], 0.5),
        ("invalid memory size", ["explain", case, "--memory", "lots"], 0.5),
        ("unknown precision", ["explain", case, "--precision", "fp8"], 0.5),
        ("truncated header", ["explain", truncated], 0.8),
        ("neuroxai methods", ["methods"], 0.5),
        ("neuroxai models list", ["models", "list"], 0.5),
        ("neuroxai --help", ["--help"], 0.5),
        ("neuroxai explain --help", ["explain", "--help"], 0.5),
    ]


def write_cases(place: Path) -> tuple[Path, Path]:
    """Write a valid case, and one with a truncated header."""
    for case in ("BraTS2021_00001", "BraTS2021_00002"):
        (place / case).mkdir()
        for name in NAMES:
            image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
            nib.save(image, place / case / f"{case}_{name}.nii")
    header = place / "BraTS2021_00002" / "BraTS2021_00002_t2.nii"
    header.write_bytes(header.read_bytes()[:200])
    return place / "BraTS2021_00001", place / "BraTS2021_00002"


def cpu_seconds(arguments: list[str]) -> float:
    """Return the user and system time of a command's process."""
    cached = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([COMMAND, *arguments], capture_output=True, check=False, env=cached)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


if __name__ == "__main__":
    main()
