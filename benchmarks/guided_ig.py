"""Guided integrated gradients without the gradients, against F and against the authors' package.

python benchmarks/guided_ig.py [--steps 200]

The input is a phantom of 2 mm at the network's size (96³, four modalities). The gradients are a
fixed pattern with a drift, so that only the work of the path is timed; PAIR's ``saliency`` runs
with a model that returns the same pattern.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from measure import Row, Table, deepseg, floor_pass, median, older_numpy, seconds
from saliency.core import INPUT_OUTPUT_GRADIENTS, GuidedIG

import neuroxai as nx
from neuroxai.data.phantom import make_phantom
from neuroxai.methods.guided_integrated_gradients import _Path
from neuroxai.models.loading import load_model
from neuroxai.workflows.preparation import prepare


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--peer-steps", type=int, default=10)
    steps = parser.parse_args().steps
    peer_steps = parser.parse_args().peer_steps
    nx.tune_allocator()
    x = prepare(load_model("deepseg-phantom"), make_phantom(100003, spacing=2.0).case, None).x
    pattern = torch.randn(x[0].shape, generator=torch.Generator().manual_seed(0))
    drift = torch.randn(x[0].shape, generator=torch.Generator().manual_seed(1))
    path = _Path(torch.zeros_like(x[0]), x[0], 0.25, 0.02)
    ours = []
    for step in range(steps):
        gradient = pattern + step / steps * drift

        def one(gradient: torch.Tensor = gradient, step: int = step) -> None:
            path.point()
            path.advance(gradient, (step + 1) / steps)

        ours.append(seconds(one))
    calls = 0

    def model(images: np.ndarray, *args: object, **more: object) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        gradient = (pattern + calls / peer_steps * drift).numpy().astype(np.float64)
        return {INPUT_OUTPUT_GRADIENTS: gradient[None]}

    image = x[0].numpy().astype(np.float64)
    with older_numpy():
        theirs = seconds(
            lambda: GuidedIG().GetMask(
                image, model, x_steps=peer_steps, x_baseline=np.zeros_like(image), max_dist=0.02,
                fraction=0.25,
            )
        ) / peer_steps  # fmt: skip
    network, _ = deepseg(x.shape[2:])
    floor_pass(network, x)
    floor = median([seconds(lambda: floor_pass(network, x)) for _ in range(5)])
    table = Table("guided_ig")
    table.add(Row("guided IG without the gradient, one step", "F, 96³", float(np.mean(ours)), floor,
                  bar=0.03, detail=f"mean of {steps} steps, longest {max(ours):.3f} s, "
                  f"{path.features:,} moving features"))  # fmt: skip
    table.add(Row("guided IG without the gradient, one step", "GuidedIG of PAIR saliency",
                  float(np.mean(ours)), theirs, detail=f"mean of {peer_steps} steps"))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
