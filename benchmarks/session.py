"""Three targets of Grad-CAM in one session, against one target and against three calls.

python benchmarks/session.py [--rounds 5] [--spacing 1.0]

A full-size phantom (voxels of 1 mm) and the shipped network, alternating in one process with the
tuned allocator. Each run opens the case again, so that preparation, hashes and prediction are
included, except for the runs in an open session.
"""

from __future__ import annotations

import argparse

import torch
from measure import Row, Table, interleave, median, spread

import neuroxai as nx

TARGETS = ("WT", "TC", "ET")
BAR = 1.4
"""Largest accepted cost of three targets relative to one."""


def in_session(model: nx.Model, case: nx.Case, targets: tuple[str, ...]) -> None:
    """Explain targets in one session."""
    with nx.open(model, case) as session:
        session.explain("grad_cam", targets)


def one_by_one(model: nx.Model, case: nx.Case, targets: tuple[str, ...]) -> None:
    """Explain targets with one call each."""
    for target in targets:
        nx.explain(model, case, "grad_cam", target)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spacing", type=float, default=1.0)
    arguments = parser.parse_args()
    nx.tune_allocator()
    table = Table("session")
    model = nx.load_model("deepseg-phantom")
    case = nx.make_phantom(100003, spacing=arguments.spacing).case
    session = nx.open(model, case)
    times = interleave(
        {
            "one, open": lambda: session.explain("grad_cam", TARGETS[:1]),
            "three, open": lambda: session.explain("grad_cam", TARGETS),
            "one": lambda: in_session(model, case, TARGETS[:1]),
            "three": lambda: in_session(model, case, TARGETS),
            "separate": lambda: one_by_one(model, case, TARGETS),
        },
        arguments.rounds,
    )
    size = "×".join(map(str, case.shape))
    table.add(
        Row(
            f"Grad-CAM of three targets in a session, {size}", "of one target",
            median(times["three"]), median(times["one"]), bar=BAR, detail=spread(times["three"]),
        )
    )  # fmt: skip
    table.add(
        Row(
            f"Grad-CAM of three targets in a session, {size}", "of three calls",
            median(times["three"]), median(times["separate"]), detail=spread(times["separate"]),
        )
    )  # fmt: skip
    table.add(
        Row(
            f"Grad-CAM of three targets in an open session, {size}", "of one target",
            median(times["three, open"]), median(times["one, open"]), bar=BAR,
            detail=spread(times["three, open"]),
        )
    )  # fmt: skip
    table.write()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
