"""Memory of one gradient over the whole volume, measured and predicted, against F.

python benchmarks/memory.py [--size 128 128 128]

Growth of the peak resident size of separate processes, relative to their size with the network and
the scan (Linux only), with the default allocator ("stock") and with the one of the command line,
which keeps freed blocks ("kept").
"""

from __future__ import annotations

import argparse

from measure import Row, Table, deepseg, floor_pass, growth, print_growth
from passes import gradient

import neuroxai as nx
from neuroxai.core.probe.memory_plan import plan_memory
from neuroxai.core.target.outputs import Outputs


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, allocator = arguments.measure
        if allocator == "kept":
            nx.tune_allocator()
        network, x = deepseg(arguments.size)
        work = floor_pass if what == "F" else gradient
        print_growth(lambda: work(network, x))
        return
    table = Table("memory")
    network, x = deepseg(arguments.size)
    predicted = plan_memory(network, x, Outputs(), 10**12).strategies[0].bytes_needed or 0
    name = "×".join(map(str, arguments.size))
    for allocator in ("stock", "kept"):
        ours, floor = (
            growth(__file__, ["--size", *arguments.size, "--measure", what, allocator])
            for what in ("gradient", "F")
        )
        detail = f"allocator {allocator}"
        if allocator == "stock":
            detail += f"; predicted {predicted / 2**20:.0f} MB"
        table.add(Row(f"memory of a gradient, {name}", f"F, allocator {allocator}", ours, floor,
                      "MB", bar=0.6, detail=detail))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
