"""GPU: seven maps of a full-size case, all layers for four targets, and comparison with the CPU.

python benchmarks/gpu.py [--size 192 224 160]

Rows have absolute figures with the name of the GPU. Without a GPU, nothing is measured.
"""

from __future__ import annotations

import argparse

import torch
from measure import Row, Table, deepseg, median, seconds

import neuroxai as nx
from inspection import everything
from neuroxai.core.engine.settings import stock_torch
from neuroxai.methods import PAPER


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=[192, 224, 160])
    arguments = parser.parse_args()
    table = Table("gpu")
    if not torch.cuda.is_available():
        table.skip("no GPU available: seven maps, all layers, comparison with the CPU")
        table.write()
        return
    card = torch.cuda.get_device_name()
    network, x = deepseg(arguments.size)
    there, y = network.cuda(), x.cuda()

    def synchronized(work: object) -> float:
        def run() -> None:
            work()  # type: ignore[operator]
            torch.cuda.synchronize()

        run()
        return median([seconds(run) for _ in range(3)])

    name = "×".join(map(str, arguments.size))
    torch.cuda.reset_peak_memory_stats()
    seven = synchronized(lambda: nx.explain(there, y, PAPER, 3))
    taken = torch.cuda.max_memory_allocated() / 2**20
    table.add(Row(f"seven maps, {name}, {card}", "10 s", seven, 10, bar=1.0,
                  detail=f"peak {taken:.0f} MB"))  # fmt: skip
    torch.cuda.reset_peak_memory_stats()
    layers = synchronized(lambda: everything(there, y))
    taken = torch.cuda.max_memory_allocated() / 2**20
    table.add(Row(f"26 layers, 4 targets, {name}, {card}", "1 s", layers, 1, bar=1.0,
                  detail=f"peak {taken:.0f} MB"))  # fmt: skip
    quick = ["vanilla_gradient", "guided_backprop", "grad_cam", "guided_grad_cam"]
    mine = nx.explain(there, y, quick, 3)
    network.cpu()
    with stock_torch():
        theirs = nx.explain(network, x, quick, 3)
    for method in quick:
        a, b = mine[method].values, theirs[method].values
        off = float((a - b).norm() / b.norm())
        table.add(Row(f"{method}, relative difference from the CPU", "1 %", off, 0.01, "",
                      bar=1.0))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
