"""How many gradients integrated gradients needs on a trained network: completeness gaps.

python benchmarks/integrated_gradients.py [--seeds 100003] [--nodes 25]

The shipped DeepSeg on unseen phantoms of 2 mm, the three regions, over the image and within the
prediction, beside captum with its default of 50 Gauss-Legendre nodes. Ours has half as many
gradients, and about as many forward passes more. Then the same with a tolerance, and how many
gradients that takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients as Captum
from measure import Row, Table, middle
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
"""Percent, the gap that the table asks for."""


def captum_gap(probe: Probe, x: Tensor) -> float:
    """Return the gap of captum's map of the same question, in stock torch."""
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
    words = argparse.ArgumentParser()
    words.add_argument("--seeds", type=int, nargs="+", default=[100003])
    words.add_argument("--nodes", type=int, default=CAPTUM // 2)
    given = words.parse_args()
    nx.tune_allocator()
    model = load_model("deepseg-phantom")
    model.network.requires_grad_(requires_grad=False)
    gaps: dict[str, list[float]] = {"adaptive": [], "midpoint": [], "until": [], "captum": []}
    asked: list[int] = []
    taken: dict[str, list[float]] = {name: [] for name in gaps}
    for seed in given.seeds:
        x = prepare(model, make_phantom(seed, spacing=2.0).case, None).x
        for word in ("WT", "TC", "ET"):
            for within in (None, Prediction()):
                question = dataclasses.replace(nx.Region(word), within=within)

                def ours(
                    rule: str,
                    until: float | None = None,
                    question: nx.Region = question,
                    x: Tensor = x,
                ) -> float:
                    probe = WholeVolume(model.network, question, outputs_of(model))
                    method = IntegratedGradients(given.nodes, rule, "zero", until)
                    found = method.explain(probe, x).diagnostics
                    if until is not None:
                        asked.append(found["nodes"])
                    gap: float = found["completeness_gap"][0]
                    return gap

                def theirs(question: nx.Region = question, x: Tensor = x) -> float:
                    probe = WholeVolume(model.network, question, outputs_of(model))
                    with probe.at(x):
                        return captum_gap(probe, x)

                works: dict[str, Callable[[], float]] = {
                    "adaptive": lambda: ours("adaptive"),
                    "midpoint": lambda: ours("midpoint"),
                    "until": lambda: ours("adaptive", BAR / 100),
                    "captum": theirs,
                }
                for name, work in works.items():
                    started = time.perf_counter()
                    gaps[name].append(work())
                    taken[name].append(time.perf_counter() - started)
                place = "within the prediction" if within else "over the image"
                last = {name: f"{found[-1]:.2%}" for name, found in gaps.items()}
                print(seed, word, place, last, flush=True)
    table = Table("integrated_gradients")
    count = len(gaps["captum"])

    def said(name: str) -> str:
        under = sum(100 * gap <= BAR for gap in gaps[name])
        return f"{count} targets, median {middle(gaps[name]):.2%}, {under} within {BAR:g} %"

    what = f"worst gap of IG, {given.nodes} gradients"
    table.add(Row(f"{what} (adaptive, the default)", "the bar", 100 * max(gaps["adaptive"]), BAR,
                  "%", 1.0, detail=f"{said('adaptive')}; up to {given.nodes - 1} forward "
                  "passes more"))  # fmt: skip
    for name in ("adaptive", "midpoint"):
        table.add(Row(f"{what} ({name})", f"captum, {CAPTUM} gradients", 100 * max(gaps[name]),
                      100 * max(gaps["captum"]), "%",
                      detail=f"{said(name)}; captum: {said('captum')}"))  # fmt: skip
        table.add(Row(f"seconds of the same ({name})", f"captum, {CAPTUM} gradients",
                      middle(taken[name]), middle(taken["captum"])))  # fmt: skip
    table.add(Row(f"worst gap of IG with tolerance={BAR / 100:g} (adaptive)", "the bar",
                  100 * max(gaps["until"]), BAR, "%",
                  detail=f"{said('until')}; gradients: {', '.join(map(str, asked))}"))  # fmt: skip
    table.add(Row("seconds of the same", f"captum, {CAPTUM} gradients", middle(taken["until"]),
                  middle(taken["captum"])))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
