"""Grad-CAM of all layers and classes at once, against captum for one layer and in a loop.

python benchmarks/inspection.py [--size 128 128 128] [--repeats 3] [--whole-loop]

The network is the 3D DeepSeg with 26 convolutions and 4 classes. captum's LayerGradCam computes one
layer and one class per call. Times are medians of alternating runs in one process. Memory (Linux
only) is the growth of the peak resident size of a separate process, relative to its size with the
network and the scan. Without ``--whole-loop``, the loop runs over the 26 layers for one class and
its time is multiplied by 4, as its row states.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from captum.attr import LayerGradCam
from measure import (
    Row,
    Table,
    deepseg,
    floor_pass,
    growth,
    interleave,
    median,
    print_growth,
    seconds,
    spread,
)
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.inspection.information_flow import information_flow

CLASSES = 4
ONE_LAYER = "decoder.3.conv2"


def mean_of(network: nn.Module, number: int) -> Callable[[Tensor], Tensor]:
    """Return the mean logit of a class over the volume, the target of both packages."""
    return lambda x: network(x)[:, number].flatten(1).mean(1)


def everything(network: nn.Module, x: Tensor, classes: int = CLASSES) -> None:
    """Compute all layers for some classes."""
    information_flow(network, x, [nx.Class(number) for number in range(classes)])


def one(network: nn.Module, x: Tensor, layer: str = ONE_LAYER, number: int = 1) -> None:
    """Compute one layer and class with captum."""
    module = network.get_submodule(layer)
    LayerGradCam(mean_of(network, number), module).attribute(x)


def loop(network: nn.Module, x: Tensor, classes: int) -> None:
    """Compute all layers with captum, one per call."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv3d)]
    for number in range(classes):
        for layer in layers:
            one(network, x, layer, number)


def memory(what: str, size: list[int]) -> float:
    """Return the memory growth in MB of a separate process."""
    return growth(__file__, ["--measure", what, "--size", *size])


def measure(what: str, size: list[int]) -> None:
    """Run one kind of work and print the growth of the peak resident size in MB."""
    network, x = deepseg(size, classes=CLASSES)
    print_growth(lambda: everything(network, x) if what == "all" else one(network, x))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole-loop", action="store_true")
    parser.add_argument("--measure", choices=["all", "one"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    nx.tune_allocator()
    if arguments.measure:
        measure(arguments.measure, arguments.size)
        return
    network, x = deepseg(arguments.size, classes=CLASSES)
    times = interleave(
        {
            "F": lambda: floor_pass(network, x),
            "one target": lambda: everything(network, x, 1),
            "all": lambda: everything(network, x),
            "one": lambda: one(network, x),
        },
        arguments.repeats,
    )
    classes = CLASSES if arguments.whole_loop else 1
    whole = seconds(lambda: loop(network, x, classes)) * CLASSES / classes
    name, half = "×".join(map(str, arguments.size)), {key: median(t) for key, t in times.items()}
    table = Table("inspection")
    for key, count, bar in (("one target", 1, 0.8), ("all", CLASSES, 2.0)):
        table.add(Row(f"Grad-CAM of 26 layers, {count} target(s), {name}", "F", half[key],
                      half["F"], bar=bar, detail=spread(times[key])))  # fmt: skip
    note = "" if arguments.whole_loop else "; extrapolated from one class"
    table.add(Row(f"Grad-CAM of 26 layers, {CLASSES} targets, {name}", "a loop over captum",
                  half["all"], whole, bar=30, at_least=True,
                  detail=f"bar: 30 times faster{note}"))  # fmt: skip
    table.add(Row(f"Grad-CAM of 26 layers, {CLASSES} targets, {name}",
                  "captum, one layer and target", half["all"], half["one"]))  # fmt: skip
    both = {what: memory(what, arguments.size) for what in ("all", "one")}
    table.add(Row("memory of the same maps", "captum, one layer and target", both["all"],
                  both["one"], "MB", bar=1.3))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
