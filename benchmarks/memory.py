"""Memory of one gradient over the whole volume, and what was predicted of it, against F.

python benchmarks/memory.py [--size 128 128 128]

The growth of the largest resident size over a process that holds the network and the scan, each in
a process of its own (Linux only): with the C library's allocator as it is, and with blocks kept, as
the command line keeps them.
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
    words = argparse.ArgumentParser()
    words.add_argument("--size", type=int, nargs=3, default=[128, 128, 128])
    words.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.measure:
        what, allocator = given.measure
        if allocator == "kept":
            nx.tune_allocator()
        network, x = deepseg(given.size)
        work = floor_pass if what == "F" else gradient
        print_growth(lambda: work(network, x))
        return
    table = Table("memory")
    network, x = deepseg(given.size)
    predicted = plan_memory(network, x, Outputs(), 10**12).strategies[0].bytes_needed or 0
    name = "×".join(map(str, given.size))
    for allocator in ("stock", "kept"):
        ours, floor = (
            growth(__file__, ["--size", *given.size, "--measure", what, allocator])
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
