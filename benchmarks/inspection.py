"""All layers and all classes at once, against one layer and class, and against a loop over both.

python benchmarks/inspection.py [--size 128 128 128] [--repeats 3] [--whole-loop]

The network is the 3D DeepSeg with its 26 convolutions and 4 classes. The peer is captum's
LayerGradCam, which takes one layer and one class a call. Times are taken in turns in one process,
medians are printed; memory (Linux only) is the growth of the largest resident size over a process
that holds the network and the scan, each in a process of its own. Without ``--whole-loop`` the loop
is measured over the 26 layers for one class, and its time is multiplied by 4: said where it is
printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable

import torch
from captum.attr import LayerGradCam
from measure import growth, print_growth, seconds
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.allocator import tune_allocator
from neuroxai.inspection.information_flow import information_flow
from neuroxai.models.deepseg import DeepSeg

CLASSES = 4
ONE_LAYER = "decoder.3.conv2"


def ready(size: list[int]) -> tuple[nn.Module, Tensor]:
    """Return network and scan, both made from fixed seeds."""
    torch.manual_seed(0)
    return DeepSeg(4, CLASSES).eval(), torch.randn(1, 4, *size)


def mean_of(network: nn.Module, number: int) -> Callable[[Tensor], Tensor]:
    """Return the class's mean logit over the volume, as the target of both sides."""
    return lambda x: network(x)[:, number].flatten(1).mean(1)


def everything(network: nn.Module, x: Tensor) -> None:
    """All layers and classes, ours."""
    information_flow(network, x, [nx.Class(number) for number in range(CLASSES)])


def one(network: nn.Module, x: Tensor, layer: str = ONE_LAYER, number: int = 1) -> None:
    """One layer and class, captum's."""
    module = network.get_submodule(layer)
    LayerGradCam(mean_of(network, number), module).attribute(x)


def loop(network: nn.Module, x: Tensor, classes: int) -> None:
    """Every layer, one a call, captum's."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv3d)]
    for number in range(classes):
        for layer in layers:
            one(network, x, layer, number)


def memory(what: str, size: list[int]) -> float:
    """Return by how many MB one kind of work grows a process of its own."""
    return growth(__file__, ["--measure", what, "--size", *size])


def measure(what: str, size: list[int]) -> None:
    """Do one kind of work once and print the growth of the largest resident size in MB."""
    network, x = ready(size)
    work = {"all": everything, "one": one}[what]
    print_growth(lambda: work(network, x))


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser()
    words.add_argument("--size", type=int, nargs=3, default=[128, 128, 128])
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--whole-loop", action="store_true")
    words.add_argument("--measure", choices=["all", "one"], help=argparse.SUPPRESS)
    given = words.parse_args()
    tune_allocator()
    if given.measure:
        measure(given.measure, given.size)
        return
    network, x = ready(given.size)
    one(network, x)
    taken: dict[str, list[float]] = {"all": [], "one": []}
    for _ in range(given.repeats):
        taken["all"].append(seconds(lambda: everything(network, x)))
        taken["one"].append(seconds(lambda: one(network, x)))
    classes = CLASSES if given.whole_loop else 1
    whole = seconds(lambda: loop(network, x, classes)) * CLASSES / classes
    here, there = (statistics.median(taken[key]) for key in ("all", "one"))
    print(
        f"DeepSeg at {given.size}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )
    print(f"26 layers x 4 classes, ours:     {here:8.2f} s  (of {len(taken['all'])}: "
          f"{min(taken['all']):.2f} to {max(taken['all']):.2f})")  # fmt: skip
    print(f"one layer, one class, captum:    {there:8.2f} s  (ours takes {here / there:.2f} times)")
    said = "" if given.whole_loop else ", one class measured, times 4"
    print(f"loop of captum over 26 x 4{said}: {whole:8.2f} s  ({whole / here:.1f} times ours)")
    both = {what: memory(what, given.size) for what in ("all", "one")}
    print(f"memory: all {both['all']:.0f} MB, one {both['one']:.0f} MB, "
          f"ratio {both['all'] / both['one']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
