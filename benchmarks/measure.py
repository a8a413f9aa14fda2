"""Seconds of a call, and the memory of a process: what the benchmarks share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resident(key: str) -> int:
    """Return the resident size now, or its peak, in kB; a child's rusage begins at its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def print_growth(work: Callable[[], object]) -> None:
    """Do some work once and print the growth of the largest resident size in MB."""
    before = resident("VmRSS")
    work()
    print((resident("VmHWM") - before) / 1024)


def growth(script: str, arguments: Sequence[object]) -> float:
    """Return by how many MB a process of its own grows; it calls :func:`print_growth`."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])
