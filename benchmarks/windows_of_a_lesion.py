"""Integrated gradients of a lesion in windows, against the share of windows that it touches.

python benchmarks/windows_of_a_lesion.py [--size 240 240 155] [--window 128 128 128] [--steps 3]

The network is the 3D DeepSeg, the target the mean logit of a class within a ball of 12 voxels, a
lesion of 7 ml. Windows that the lesion does not touch have no gradient and are not run along the
path. The time is compared with the same maps from all windows, in one process, alternating; the bar
is 1.15 times the share of windows that the lesion touches. The maps are equal to the bit.
"""

from __future__ import annotations

import argparse
import time

import torch
from measure import deepseg
from sliding_window import OUTPUTS, windows_of
from torch import Tensor

from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.target.restriction import Mask
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method


class EveryWindow(SlidingWindow):
    """Runs all windows, as before."""

    def _touched(self, *_: object) -> None:
        return None


def ball(shape: list[int], radius: float = 12) -> Tensor:
    """Return a ball off the middle, ``(*S)`` bool."""
    center = [n * part for n, part in zip(shape, (0.3, 0.4, 0.6), strict=True)]
    square = torch.zeros(shape)
    for axis, (n, at) in enumerate(zip(shape, center, strict=True)):
        line = (torch.arange(n) - at) ** 2
        square = square + line.reshape([-1 if a == axis else 1 for a in range(3)])
    return square <= radius**2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=[240, 240, 155])
    parser.add_argument("--window", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    network, x = deepseg(arguments.size)
    lesion = ball(arguments.size)
    windows = windows_of(arguments.window, 0.5)
    placed = windows.place(arguments.size)
    share = len(placed.touching(lesion[None])) / len(placed)
    method = make_method(
        "integrated_gradients",
        {"steps": arguments.steps, "baseline": "zero", "rule": "midpoint"},
    )
    seconds, maps = {}, {}
    for kind in (SlidingWindow, EveryWindow):
        probe = kind(network, Class(3, within=Mask(lesion)), OUTPUTS, windows=windows)
        started = time.perf_counter()
        maps[kind] = method.explain(probe, x).values
        seconds[kind] = time.perf_counter() - started
        print(f"{kind.__name__}: {seconds[kind]:.1f} s, {probe.passes}")
    ratio = seconds[SlidingWindow] / seconds[EveryWindow]
    equal = torch.equal(maps[SlidingWindow], maps[EveryWindow])
    print(
        f"share of windows touched {share:.3f}, time {ratio:.3f} = {ratio / share:.2f} x the share"
    )
    print(f"maps equal to the bit: {equal}")


if __name__ == "__main__":
    main()
