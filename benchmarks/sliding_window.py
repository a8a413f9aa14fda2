"""The exact gradient of a blended answer, against the sum of its windows and against one graph.

python benchmarks/sliding_window.py [--size 240 240 155] [--window 128 128 128] [--overlap 0.5]

The network is the 3D DeepSeg. A row is the gradient of one class's mean logit, and of a region's,
over the blended answer. "Windows' sum" is one forward and one backward pass of stock torch over
every window, with nothing kept and nothing blended: no exact gradient in stock torch can cost less.
Times are taken in turns in one process, after one round that does not count; memory (Linux only) is
the growth of the largest resident size over a process that holds the network and the scan, each in
a process of its own, and for the windows' sum one window is enough. ``--graph`` adds MONAI's
sliding_window_inference differentiated as one graph, which needs the memory of all windows
together.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from measure import Row, Table, deepseg, growth, in_turn, middle, print_growth, spread
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
    """MONAI's windows differentiated whole."""
    leaf = x.clone().requires_grad_()
    blended = sliding_window_inference(
        leaf, windows.size, 1, network, overlap=windows.overlap, roi_weight_map=windows.weights
    )
    (gradient,) = torch.autograd.grad(blended[:, 3].mean(), leaf)
    return gradient


def memory(what: str, given: argparse.Namespace) -> float:
    """Return by how many MB one kind of work grows a process of its own."""
    sizes = ["--size", *given.size, "--window", *given.window]
    return growth(__file__, ["--measure", what, "--overlap", given.overlap, *sizes])


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser()
    words.add_argument("--size", type=int, nargs=3, default=[240, 240, 155])
    words.add_argument("--window", type=int, nargs=3, default=[128, 128, 128])
    words.add_argument("--overlap", type=float, default=0.5)
    words.add_argument("--repeats", type=int, default=1)
    words.add_argument("--graph", action="store_true")
    words.add_argument("--measure", choices=["ours", "window"], help=argparse.SUPPRESS)
    given = words.parse_args()
    nx.tune_allocator()
    (network, x), windows = deepseg(given.size), windows_of(given.window, given.overlap)
    if given.measure:
        if given.measure == "ours":
            print_growth(lambda: ours(network, x, windows, nx.Region("TC")))
        else:
            print_growth(lambda: each_window(network, x, windows, 1))
        return
    count = len(windows.place(given.size))
    works: dict[str, Callable[[], object]] = {
        "windows' sum": lambda: each_window(network, x, windows),
        "class, exact": lambda: ours(network, x, windows, nx.Class(3)),
        "region, exact": lambda: ours(network, x, windows, nx.Region("TC")),
    }
    if given.graph:
        works["one graph (MONAI)"] = lambda: one_graph(network, x, windows)
    taken = in_turn(works, given.repeats)
    half = {name: middle(times) for name, times in taken.items()}
    whole, part = ("×".join(map(str, size)) for size in (given.size, given.window))
    name = f"{whole}, {count} windows of {part}"
    table = Table("sliding_window")
    for key in ("class, exact", "region, exact"):
        bar = 1.15 if key.startswith("class") else None
        table.add(Row(f"exact gradient of the blended answer, {key.partition(',')[0]}, {name}",
                      "the windows' sum in stock torch", half[key], half["windows' sum"], bar=bar,
                      detail=spread(taken[key])))  # fmt: skip
    if given.graph:
        exact = one_graph(network, x, windows)
        found = ours(network, x, windows, nx.Class(3))
        off = float((found - exact).norm() / exact.norm())
        table.add(Row("the same, class", "MONAI's windows as one graph", half["class, exact"],
                      half["one graph (MONAI)"], detail=f"maps off by {off:.1e}"))  # fmt: skip
    one, all_of_it = memory("window", given), memory("ours", given)
    volumes = (x.numel() * 2 + x[0, 0].numel() * (2 * len(NAMES) + 2)) * 4 / 2**20
    table.add(Row("memory of the same, region", "one window in stock torch, and the volumes",
                  all_of_it, one + volumes, "MB", bar=1.0,
                  detail=f"window {one:.0f} MB, volumes {volumes:.0f} MB"))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
