"""Shared by the benchmarks: measurement of time and memory, and rows of the table of results.

Every script prints its rows and writes them to ``benchmarks/results/``; ``report.py`` generates
``docs/benchmarks.md`` from them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "captum", "monai", "saliency", "grad-cam", "medcam")

Work = Callable[[], object]


@dataclass
class Row:
    """Row of the table of results.

    Attributes
    ----------
    what
        What was measured.
    against
        Reference that it is compared with.
    ours, theirs
        The measurement and that of the reference; medians of repeated runs.
    unit
        Unit of both.
    bar
        Largest accepted ratio; the smallest, if ``at_least``. None without a bar.
    detail
        Range, number of rounds, difference of the maps, and other information.
    """

    what: str
    against: str
    ours: float
    theirs: float
    unit: str = "s"
    bar: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def ratio(self) -> float:
        """Ours over theirs, or theirs over ours with ``at_least``."""
        return self.theirs / self.ours if self.at_least else self.ours / self.theirs

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within the bar; None without a bar."""
        if self.bar is None:
            return None
        return self.ratio >= self.bar if self.at_least else self.ratio <= self.bar

    def format(self) -> str:
        """Format the row as one line."""
        bar = "" if self.bar is None else f" (bar {self.bar:g}: {'met' if self.met else 'MISSED'})"
        return (
            f"{self.what}: {self.ours:.3g} {self.unit}, {self.against}: {self.theirs:.3g} "
            f"{self.unit}, ratio {self.ratio:.2f}{bar}; {self.detail}"
        )


@dataclass
class Table:
    """Rows of one script, printed immediately and written at the end."""

    script: str
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Print a row and add it to the table."""
        print(row.format(), flush=True)
        self.rows.append(row)

    def skip(self, sentence: str) -> None:
        """Report a measurement that was not run."""
        print(f"NOT RUN: {sentence}", flush=True)
        self.skipped.append(sentence)

    def write(self) -> None:
        """Write the rows with machine, date, versions and load as JSON."""
        RESULTS.mkdir(exist_ok=True)
        content = {
            "script": self.script,
            "rows": [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in self.rows],
            "skipped": self.skipped,
            **machine(),
        }
        (RESULTS / f"{self.script}.json").write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, object]:
    """Return the machine, date and versions of a measurement."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def seconds(work: Work) -> float:
    """Return the wall time of a call in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleave(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of several functions in alternating rounds, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            spent = seconds(work)
            if number:
                times[name].append(spent)
    return times


def spread(times: Sequence[float]) -> str:
    """Format the range of some times."""
    return f"{min(times):.2f} to {max(times):.2f} s, {len(times)} rounds"


def median(times: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(times)


def deepseg(size: Sequence[int], channels: int = 4, classes: int = 4) -> tuple[nn.Module, Tensor]:
    """Return the paper's network with frozen weights and a scan, both random from fixed seeds."""
    from neuroxai.models.deepseg import DeepSeg

    torch.manual_seed(0)
    network = DeepSeg(channels, classes).eval().requires_grad_(requires_grad=False)
    return network, torch.randn(1, channels, *size)


def floor_pass(network: nn.Module, x: Tensor, number: int = 3) -> Tensor:
    """Return the gradient at the input by a hand-written pass in stock torch, the reference F."""
    leaf = x.clone().requires_grad_()
    output = network(leaf)
    score = output[:, number].mean() if output.dim() > 2 else output[:, number].sum()
    return torch.autograd.grad(score, leaf)[0]


def peak_gflops(size: int = 3000, rounds: int = 5) -> float:
    """Return the GFLOP per second of a large matrix product in single precision."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    return 2e-9 * size**3 / min(seconds(lambda: a @ b) for _ in range(rounds))


def resident(key: str) -> int:
    """Return a field of the process status in kB, such as VmRSS or its peak VmHWM.

    The peak in ``getrusage`` of a child process includes that of its parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def print_growth(work: Work) -> None:
    """Run a function and print the growth of the peak resident size in MB."""
    before = resident("VmRSS")
    work()
    print((resident("VmHWM") - before) / 1024)


def growth(script: str, arguments: Sequence[object]) -> float:
    """Return the memory growth in MB of a separate process that calls :func:`print_growth`."""
    return child(script, arguments)[-1]


def child(script: str, arguments: Sequence[object]) -> list[float]:
    """Return the numbers that a separate process prints on its last line."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return [float(word) for word in done.stdout.strip().splitlines()[-1].split()]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@contextmanager
def older_numpy() -> Iterator[None]:
    """Context manager in which ``np.quantile`` takes ``interpolation``, for PAIR's package."""
    current = np.quantile

    def quantile(values: object, share: object, interpolation: str = "linear") -> object:
        return current(values, share, method=interpolation)  # type: ignore[call-overload]

    np.quantile = quantile  # type: ignore[assignment]
    try:
        yield
    finally:
        np.quantile = current
