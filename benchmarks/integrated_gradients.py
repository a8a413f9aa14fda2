"""How many gradients integrated gradients needs on a trained network: completeness gaps.

python benchmarks/integrated_gradients.py [--seeds 100003] [--nodes 25]

The shipped DeepSeg on unseen phantoms of 2 mm, the three regions, over the image and within the
prediction. Captum's default is Gauss-Legendre with 50 nodes; ours has half as many gradients.
"""

from __future__ import annotations

import argparse
import dataclasses

from measure import Row, Table, middle

import neuroxai as nx
from neuroxai.core.answers import Asks
from neuroxai.core.restriction import Prediction
from neuroxai.core.whole_volume import WholeVolume
from neuroxai.data.phantom import make_phantom
from neuroxai.explainer import outputs_of, prepare
from neuroxai.methods.integrated_gradients import IntegratedGradients
from neuroxai.models.loading import load_model

CAPTUM = 50


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser()
    words.add_argument("--seeds", type=int, nargs="+", default=[100003])
    words.add_argument("--nodes", type=int, default=CAPTUM // 2)
    given = words.parse_args()
    nx.tune_allocator()
    model = load_model("deepseg-phantom")
    methods = {
        "ours": IntegratedGradients(steps=given.nodes),
        "ours, gauss_legendre": IntegratedGradients(steps=given.nodes, rule="gauss_legendre"),
        "captum": IntegratedGradients(steps=CAPTUM, rule="gauss_legendre"),
    }
    gaps: dict[str, list[float]] = {name: [] for name in methods}
    for seed in given.seeds:
        x = prepare(model, make_phantom(seed, spacing=2.0).case, None).x
        for word in ("WT", "TC", "ET"):
            for within in (None, Prediction()):
                question = dataclasses.replace(nx.Region(word), within=within)
                probe = WholeVolume(model.network, question, outputs_of(model))
                with probe.at(x, Asks()):
                    for name, method in methods.items():
                        explained = method.explain(probe, x)
                        gaps[name].append(explained.diagnostics["completeness_gap"][0])
                place = "within the prediction" if within else "over the image"
                last = {name: f"{found[-1]:.2%}" for name, found in gaps.items()}
                print(seed, word, place, last, flush=True)
    table = Table("integrated_gradients")
    for name in ("ours", "ours, gauss_legendre"):
        worst = max(gaps[name])
        table.add(Row(f"worst gap of IG, {given.nodes} gradients ({methods[name].rule})",
                      f"{CAPTUM} gradients as captum's default", 100 * worst,
                      100 * max(gaps["captum"]), "%",
                      detail=f"{len(gaps[name])} targets, median {middle(gaps[name]):.2%} against "
                      f"{middle(gaps['captum']):.2%}; under 1 %: "
                      f"{sum(gap < 0.01 for gap in gaps[name])} of {len(gaps[name])} against "
                      f"{sum(gap < 0.01 for gap in gaps['captum'])}; the bar is 1 % for all: "
                      f"{'met' if worst < 0.01 else 'MISSED'}"))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
