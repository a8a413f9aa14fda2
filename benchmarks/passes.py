"""A single gradient, against F: a hand-written pass with frozen weights in stock torch.

python benchmarks/passes.py [--sizes 64 96 128] [--rounds 5]

Two comparisons for DeepSeg at every size. "Process": a process with the settings of the command
line (tuned allocator, fast path) against a process of stock torch, alternating, after one warm-up.
"Within": both in one process with the tuned allocator. Integrated gradients, guided integrated
gradients and SmoothGrad take one such gradient per step; the remaining work of guided integrated
gradients is measured by ``guided_ig.py``. Guided backpropagation is included.
"""

from __future__ import annotations

import argparse

import torch
from measure import (
    Row,
    Table,
    child,
    deepseg,
    floor_pass,
    interleave,
    median,
    peak_gflops,
    seconds,
    spread,
)
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.probe.requests import InputGradient
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.rules.backward_rule import PLAIN
from neuroxai.core.rules.guided import GUIDED

BARS = {64: 0.45, 96: 0.45, 128: 0.28}
GFLOP = {64: 14.4, 96: 48.4, 128: 114.6}
"""GFLOP of one forward and one backward pass, by size."""


def gradient(network: nn.Module, x: Tensor, *, guided: bool = False) -> Tensor:
    """Return the plain or the guided gradient."""
    probe = WholeVolume(network, nx.Class(3))
    rule = GUIDED if guided else PLAIN
    with probe.at(x, [InputGradient(rule)]):
        return probe.gradient(x, rule)


def measure(what: str, size: int) -> None:
    """Print the seconds of the first pass, and the median of three more."""
    network, x = deepseg([size] * 3)
    if what != "F":
        nx.tune_allocator()
    work = {
        "F": lambda: floor_pass(network, x),
        "gradient": lambda: gradient(network, x),
        "guided": lambda: gradient(network, x, guided=True),
    }[what]
    first = seconds(work)
    print(first, median([seconds(work) for _ in range(3)]))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], int(arguments.measure[1]))
        return
    table = Table("passes")
    peak = peak_gflops()
    for size in arguments.sizes:
        taken: dict[str, list[list[float]]] = {"F": [], "gradient": [], "guided": []}
        for _ in range(arguments.rounds):
            for what, times in taken.items():
                times.append(child(__file__, ["--measure", what, size]))
        network, x = deepseg([size] * 3)
        exact, ours = floor_pass(network, x), gradient(network, x)
        off = float((ours - exact).norm() / exact.norm())
        floors = [both[1] for both in taken["F"]]
        cold = median([t[0] for t in taken["gradient"]]) / median([t[0] for t in taken["F"]])
        for key, name in (("gradient", "vanilla gradient"), ("guided", "guided backpropagation")):
            warm = [t[1] for t in taken[key]]
            share = GFLOP[size] / median(warm) / peak if size in GFLOP else float("nan")
            detail = f"{spread(warm)}; F {spread(floors)}; {share:.0%} of peak GFLOP/s"
            if key == "gradient":
                detail += (
                    f"; relative difference of maps {off:.1e}; ratio of first passes {cold:.2f}"
                )
            what, bar = f"{name}, {size}³, process", BARS.get(size)
            table.add(
                Row(what, "F in a stock process", median(warm), median(floors), bar=bar,
                    detail=detail)
            )  # fmt: skip
    nx.tune_allocator()
    for size in arguments.sizes:
        network, x = deepseg([size] * 3)
        both = interleave(
            {"F": lambda: floor_pass(network, x), "ours": lambda: gradient(network, x)},  # noqa: B023
            arguments.rounds,
        )
        table.add(Row(f"vanilla gradient, {size}³, within", "F, same process and allocator",
                      median(both["ours"]), median(both["F"]), bar=0.75,
                      detail=spread(both["ours"])))  # fmt: skip
    table.write()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
