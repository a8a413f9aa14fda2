"""Completeness gaps of integrated gradients on a trained network, by number of gradients.

python benchmarks/integrated_gradients.py [--seeds 100003] [--nodes 25]

The shipped DeepSeg on test phantoms of 2 mm: three regions, over the image and within the
prediction, compared with captum's default of 50 Gauss-Legendre nodes. Our default takes half as
many gradients and about as many additional forward passes. The last rows use a tolerance and state
the number of gradients.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients as Captum
from measure import Row, Table, median
from torch import Tensor

import neuroxai as nx
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.restriction import Prediction
from neuroxai.data.phantom import make_phantom
from neuroxai.methods.integrated_gradients import IntegratedGradients
from neuroxai.models.loading import load_model
from neuroxai.workflows.preparation import outputs_of, prepare

CAPTUM = 50
BAR = 1.0
"""Largest accepted gap in percent."""


def captum_gap(probe: Probe, x: Tensor) -> float:
    """Return the gap of captum's map for the same target, in stock torch."""
    with torch.no_grad():
        bound = probe.bind(probe.network(x))
    method = Captum(lambda p: bound.score(probe.network(p)))
    _, delta = method.attribute(
        x, torch.zeros_like(x), n_steps=CAPTUM, internal_batch_size=1,
        return_convergence_delta=True,
    )  # fmt: skip
    with torch.no_grad():
        change = bound.score(probe.network(x)) - bound.score(probe.network(0 * x))
    return float((delta / change).abs()[0])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[100003])
    parser.add_argument("--nodes", type=int, default=CAPTUM // 2)
    arguments = parser.parse_args()
    nx.tune_allocator()
    model = load_model("deepseg-phantom")
    model.network.requires_grad_(requires_grad=False)
    gaps: dict[str, list[float]] = {"adaptive": [], "midpoint": [], "tolerance": [], "captum": []}
    gradients: list[int] = []
    times: dict[str, list[float]] = {name: [] for name in gaps}
    for seed in arguments.seeds:
        x = prepare(model, make_phantom(seed, spacing=2.0).case, None).x
        for region in ("WT", "TC", "ET"):
            for within in (None, Prediction()):
                target = dataclasses.replace(nx.Region(region), within=within)

                def ours(
                    rule: str,
                    tolerance: float | None = None,
                    target: nx.Region = target,
                    x: Tensor = x,
                ) -> float:
                    probe = WholeVolume(model.network, target, outputs_of(model))
                    method = IntegratedGradients(arguments.nodes, rule, "zero", tolerance)
                    found = method.explain(probe, x).diagnostics
                    if tolerance is not None:
                        gradients.append(found["nodes"])
                    gap: float = found["completeness_gap"][0]
                    return gap

                def theirs(target: nx.Region = target, x: Tensor = x) -> float:
                    probe = WholeVolume(model.network, target, outputs_of(model))
                    with probe.at(x):
                        return captum_gap(probe, x)

                works: dict[str, Callable[[], float]] = {
                    "adaptive": lambda: ours("adaptive"),
                    "midpoint": lambda: ours("midpoint"),
                    "tolerance": lambda: ours("adaptive", BAR / 100),
                    "captum": theirs,
                }
                for name, work in works.items():
                    started = time.perf_counter()
                    gaps[name].append(work())
                    times[name].append(time.perf_counter() - started)
                place = "within the prediction" if within else "over the image"
                last = {name: f"{found[-1]:.2%}" for name, found in gaps.items()}
                print(seed, region, place, last, flush=True)
    table = Table("integrated_gradients")
    count = len(gaps["captum"])

    def summary(name: str) -> str:
        under = sum(100 * gap <= BAR for gap in gaps[name])
        return f"{count} targets, median {median(gaps[name]):.2%}, {under} within {BAR:g} %"

    what = f"largest gap of IG, {arguments.nodes} gradients"
    table.add(Row(f"{what} (adaptive, the default)", "bar", 100 * max(gaps["adaptive"]), BAR,
                  "%", 1.0, detail=f"{summary('adaptive')}; up to {arguments.nodes - 1} more "
                  "forward passes"))  # fmt: skip
    for name in ("adaptive", "midpoint"):
        table.add(Row(f"{what} ({name})", f"captum, {CAPTUM} gradients", 100 * max(gaps[name]),
                      100 * max(gaps["captum"]), "%",
                      detail=f"{summary(name)}; captum: {summary('captum')}"))  # fmt: skip
        table.add(Row(f"time of IG, {arguments.nodes} gradients ({name})",
                      f"captum, {CAPTUM} gradients",
                      median(times[name]), median(times["captum"])))  # fmt: skip
    table.add(Row(f"largest gap of IG with tolerance={BAR / 100:g} (adaptive)", "bar",
                  100 * max(gaps["tolerance"]), BAR, "%",
                  detail=f"{summary('tolerance')}; gradients: "
                  f"{', '.join(map(str, gradients))}"))  # fmt: skip
    table.add(Row(f"time of IG with tolerance={BAR / 100:g} (adaptive)",
                  f"captum, {CAPTUM} gradients", median(times["tolerance"]),
                  median(times["captum"])))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
