"""Exact gradient of a blended output, against passes over its windows and against one graph.

python benchmarks/sliding_window.py [--size 240 240 155] [--window 128 128 128] [--overlap 0.5]

The network is the 3D DeepSeg, the target the mean logit of a class or a region over the blended
output. The reference is one forward and one backward pass of stock torch per window without
blending, a lower bound for exact gradients in stock torch. Times are medians of alternating runs in
one process after a warm-up. Memory (Linux only) is the growth of the peak resident size of a
separate process, relative to its size with the network and the scan; for the reference, a single
window. ``--graph`` adds MONAI's sliding_window_inference differentiated as one graph, which needs
the memory of all windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from measure import Row, Table, deepseg, growth, interleave, median, print_growth, spread
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.probe.requests import InputGradient
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target

NAMES = ("background", "NCR", "ED", "ET")
OUTPUTS = Outputs(NAMES, {"TC": ("NCR", "ET")}, "softmax")


def windows_of(size: Sequence[int], overlap: float) -> Windows:
    """Return MONAI's windows with Gaussian weights."""
    return Windows(tuple(size), compute_importance_map(size, mode="gaussian"), overlap)


def ours(network: nn.Module, x: Tensor, windows: Windows, target: Target) -> Tensor:
    """Return the exact gradient."""
    probe = SlidingWindow(network, target, OUTPUTS, windows=windows)
    with probe.at(x, [InputGradient()]):
        return probe.gradient(x)


def each_window(network: nn.Module, x: Tensor, windows: Windows, count: int | None = None) -> None:
    """One forward and one backward pass of stock torch over every window, or the first few."""
    laid = windows.place(x.shape[2:])
    padded = laid.pad(x)
    for cut in list(laid)[:count]:
        leaf = padded[cut].clone().requires_grad_()
        torch.autograd.grad(network(leaf)[:, 3].mean(), leaf)


def one_graph(network: nn.Module, x: Tensor, windows: Windows) -> Tensor:
    """Return the gradient of MONAI's sliding window inference as one graph."""
    leaf = x.clone().requires_grad_()
    blended = sliding_window_inference(
        leaf, windows.size, 1, network, overlap=windows.overlap, roi_weight_map=windows.weights
    )
    (gradient,) = torch.autograd.grad(blended[:, 3].mean(), leaf)
    return gradient


def memory(what: str, arguments: argparse.Namespace) -> float:
    """Return the memory growth in MB of a separate process."""
    sizes = ["--size", *arguments.size, "--window", *arguments.window]
    return growth(__file__, ["--measure", what, "--overlap", arguments.overlap, *sizes])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=[240, 240, 155])
    parser.add_argument("--window", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--graph", action="store_true")
    parser.add_argument("--measure", choices=["ours", "window"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    nx.tune_allocator()
    (network, x), windows = deepseg(arguments.size), windows_of(arguments.window, arguments.overlap)
    if arguments.measure:
        if arguments.measure == "ours":
            print_growth(lambda: ours(network, x, windows, nx.Region("TC")))
        else:
            print_growth(lambda: each_window(network, x, windows, 1))
        return
    count = len(windows.place(arguments.size))
    works: dict[str, Callable[[], object]] = {
        "windows": lambda: each_window(network, x, windows),
        "class, exact": lambda: ours(network, x, windows, nx.Class(3)),
        "region, exact": lambda: ours(network, x, windows, nx.Region("TC")),
    }
    if arguments.graph:
        works["one graph (MONAI)"] = lambda: one_graph(network, x, windows)
    times = interleave(works, arguments.repeats)
    half = {name: median(each) for name, each in times.items()}
    whole, part = ("×".join(map(str, size)) for size in (arguments.size, arguments.window))
    name = f"{whole}, {count} windows of {part}"
    table = Table("sliding_window")
    for key in ("class, exact", "region, exact"):
        bar = 1.15 if key.startswith("class") else None
        table.add(Row(f"exact gradient of the blended output, {key.partition(',')[0]}, {name}",
                      "windows in stock torch", half[key], half["windows"], bar=bar,
                      detail=spread(times[key])))  # fmt: skip
    if arguments.graph:
        exact = one_graph(network, x, windows)
        found = ours(network, x, windows, nx.Class(3))
        off = float((found - exact).norm() / exact.norm())
        table.add(Row(f"exact gradient of the blended output, class, {name}",
                      "MONAI's windows as one graph", half["class, exact"],
                      half["one graph (MONAI)"],
                      detail=f"relative difference of maps {off:.1e}"))  # fmt: skip
    one, all_of_it = memory("window", arguments), memory("ours", arguments)
    volumes = (x.numel() * 2 + x[0, 0].numel() * (2 * len(NAMES) + 2)) * 4 / 2**20
    table.add(Row("memory of the exact gradient, region", "one window in stock torch plus volumes",
                  all_of_it, one + volumes, "MB", bar=1.0,
                  detail=f"window {one:.0f} MB, volumes {volumes:.0f} MB"))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
