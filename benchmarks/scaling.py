"""Scaling of time and memory with volume, targets, layers and steps, against the expected slope.

python benchmarks/scaling.py [--rounds 2]

Writes ``docs/benchmarks-scaling.png``. Expected: time and memory of a gradient are proportional to
the number of voxels; the time of all layer maps is that of the forward pass plus a constant per
target, independent of the number of layers; the time of integrated gradients is proportional to
the number of steps.
"""

from __future__ import annotations

import argparse
from functools import partial
from math import prod
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from measure import Row, Table, Work, deepseg, growth, interleave, median, print_growth
from passes import gradient

import neuroxai as nx
from inspection import everything
from neuroxai.core.probe.requests import InputGradient, LayerMap
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.methods.integrated_gradients import IntegratedGradients

SIZES = ((64, 64, 64), (96, 96, 96), (128, 128, 128), (160, 192, 128), (240, 240, 155))
STEPS, TARGETS, LAYERS = (2, 4, 8, 16), (1, 2, 3, 4), (1, 6, 13, 26)
FIGURE = Path(__file__).parents[1] / "docs" / "benchmarks-scaling.png"


def slope(x: list[float], y: list[float]) -> float:
    """Return the slope in a double logarithmic plot."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(axes: Axes, x: list[float], y: list[float], name: str, unit: str, expected: float) -> None:
    """Draw the measurements, and a line of the expected slope through the median one."""
    axes.loglog(x, y, "o-", color="black", label=f"measured, slope {slope(x, y):.2f}")
    at = len(x) // 2
    line = [y[at] * (value / x[at]) ** expected for value in x]
    axes.loglog(x, line, "--", color="gray", label=f"expected, slope {expected:g}")
    axes.set_xlabel(name)
    axes.set_ylabel(unit)
    axes.legend(frameon=False)


def layers_pass(network: torch.nn.Module, x: torch.Tensor, names: list[str]) -> None:
    """Compute the maps of some layers in one forward and one backward pass."""
    probe = WholeVolume(network, nx.Class(3))
    with probe.at(x, [InputGradient(), *(LayerMap(name) for name in names)]):
        probe.gradient(x)


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        network, x = deepseg(arguments.measure)
        print_growth(lambda: gradient(network, x))
        return
    nx.tune_allocator()
    table = Table("scaling")
    voxels = [float(prod(size)) for size in SIZES]
    seconds, memory = [], []
    for size in SIZES:
        network, x = deepseg(size)
        found = interleave({"ours": lambda: gradient(network, x)}, arguments.rounds)  # noqa: B023
        seconds.append(median(found["ours"]))
        memory.append(growth(__file__, ["--measure", *size]))
        print(size, f"{seconds[-1]:.2f} s, {memory[-1]:.0f} MB", flush=True)
    network, x = deepseg((96, 96, 96))
    names = [n for n, module in network.named_modules() if isinstance(module, torch.nn.Conv3d)]
    works: dict[str, Work] = {f"targets {n}": partial(everything, network, x, n) for n in TARGETS}
    works |= {f"layers {n}": partial(layers_pass, network, x, names[-n:]) for n in LAYERS}
    for n in STEPS:
        method = IntegratedGradients(steps=n, rule="midpoint", baseline="zero")
        works[f"steps {n}"] = partial(nx.explain, network, x, method, 3)
    times = {name: median(t) for name, t in interleave(works, arguments.rounds).items()}
    figure, places = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    draw(places[0, 0], voxels, seconds, "voxels", "s for a gradient", 1)
    draw(places[0, 1], voxels, memory, "voxels", "MB for a gradient", 1)
    draw(places[1, 0], list(map(float, STEPS)), [times[f"steps {n}"] for n in STEPS],
         "steps of integrated gradients, 96³", "s", 1)  # fmt: skip
    axes = places[1, 1]
    axes.plot(TARGETS, [times[f"targets {n}"] for n in TARGETS], "o-", color="black",
              label="26 layers, by targets")  # fmt: skip
    axes.plot(LAYERS, [times[f"layers {n}"] for n in LAYERS], "s-", color="gray",
              label="1 target and the gradient, by layers")  # fmt: skip
    axes.set_ylim(0)
    axes.set_xlabel("targets, or layers, 96³")
    axes.set_ylabel("s")
    axes.legend(frameon=False)
    figure.suptitle("DeepSeg: a gradient, maps of all layers, integrated gradients")
    figure.savefig(FIGURE, dpi=110)
    table.add(Row("slope of time against voxels", "expected", slope(voxels, seconds), 1.0, ""))
    table.add(Row("slope of memory against voxels", "expected", slope(voxels, memory), 1.0, ""))
    by_steps = slope(list(map(float, STEPS)), [times[f"steps {n}"] for n in STEPS])
    table.add(Row("slope of time against steps", "expected", by_steps, 1.0, ""))
    table.add(Row("26 layers instead of 1", "1 layer", times["layers 26"], times["layers 1"]))
    table.add(Row("4 targets instead of 1, 26 layers", "1 target", times["targets 4"],
                  times["targets 1"]))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
