"""Three targets of Grad-CAM in one session, against one target and against three calls.

python benchmarks/session.py [--rounds 5] [--spacing 1.0]

A full-size phantom (voxels of 1 mm) and the shipped network, in one process with the allocator
kept. The works take turns. Each opens the case anew, so that preparation, hashes and the prediction
count.
"""

from __future__ import annotations

import argparse

import torch
from measure import Row, Table, in_turn, middle, spread

import neuroxai as nx

TARGETS = ("WT", "TC", "ET")
BAR = 1.4
"""Three targets may cost this much of one."""


def in_session(model: nx.Model, case: nx.Case, targets: tuple[str, ...]) -> None:
    """Explain targets in one session, which is opened for them."""
    with nx.open(model, case) as session:
        session.explain("grad_cam", targets)


def one_by_one(model: nx.Model, case: nx.Case, targets: tuple[str, ...]) -> None:
    """Explain targets by a call for each."""
    for target in targets:
        nx.explain(model, case, "grad_cam", target)


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--spacing", type=float, default=1.0)
    given = options.parse_args()
    nx.tune_allocator()
    table = Table("session")
    model = nx.load_model("deepseg-phantom")
    case = nx.make_phantom(100003, spacing=given.spacing).case
    times = in_turn(
        {
            "one": lambda: in_session(model, case, TARGETS[:1]),
            "three": lambda: in_session(model, case, TARGETS),
            "separate": lambda: one_by_one(model, case, TARGETS),
        },
        given.rounds,
    )
    size = "×".join(map(str, case.shape))
    table.add(
        Row(
            f"Grad-CAM of three targets in a session, {size}", "of one target",
            middle(times["three"]), middle(times["one"]), bar=BAR, detail=spread(times["three"]),
        )
    )  # fmt: skip
    table.add(
        Row(
            f"Grad-CAM of three targets in a session, {size}", "of three calls",
            middle(times["three"]), middle(times["separate"]), detail=spread(times["separate"]),
        )
    )  # fmt: skip
    table.write()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
