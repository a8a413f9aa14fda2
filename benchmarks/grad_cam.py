"""Grad-CAM of one layer, against F and against other packages.

python benchmarks/grad_cam.py [--size 96 96 96] [--rounds 3]

The layer is the last convolution of DeepSeg's decoder, the target the mean logit of a class.
grad-cam and M3d-CAM (medcam) are not development dependencies: ``peers.py`` creates an environment
with them. Packages that are not available are listed as not run.
"""

from __future__ import annotations

import argparse

import torch
from captum.attr import LayerGradCam
from measure import Row, Table, Work, deepseg, floor_pass, interleave, median, spread
from monai.visualize.class_activation_maps import GradCAM
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.probe.requests import LayerMap
from neuroxai.core.probe.whole_volume import WholeVolume

NUMBER = 3


class Mean(nn.Module):
    """Segmenter as a classifier: the mean logit of every class."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, K)``."""
        out: Tensor = self.network(x).flatten(2).mean(2)
        return out


def ours(network: nn.Module, x: Tensor, layer: str) -> Tensor:
    """Return the map of the layer."""
    probe = WholeVolume(network, nx.Class(NUMBER))
    with probe.at(x, [LayerMap(layer)]):
        return probe.layer_map(x, layer)[1]


def peers(network: nn.Module, x: Tensor, layer: str, table: Table) -> dict[str, Work]:
    """Return the packages that are available."""
    mean, x = (
        Mean(network),
        x.clone().requires_grad_(),
    )  # some packages need a gradient at the input
    inner = network.get_submodule(layer)
    works: dict[str, Work] = {
        "captum LayerGradCam": lambda: LayerGradCam(mean, inner).attribute(x, NUMBER),
        "MONAI GradCAM": lambda: GradCAM(mean, f"network.{layer}")(x, NUMBER),
    }
    try:
        from pytorch_grad_cam import GradCAM as PeerCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        target = [ClassifierOutputTarget(NUMBER)]
        works["grad-cam"] = lambda: PeerCAM(mean, [inner])(x, target)
    except (ImportError, RuntimeError) as error:
        table.skip(f"grad-cam is not available ({str(error).splitlines()[0]}); see peers.py")
    try:
        from medcam import medcam

        injected = medcam.inject(
            mean, backend="gcam", layer=f"network.{layer}", label=NUMBER, return_attention=True
        )
        works["M3d-CAM (medcam)"] = lambda: injected(x)
    except (ImportError, RuntimeError) as error:
        table.skip(f"medcam is not available ({str(error).splitlines()[0]}); see peers.py")
    return works


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=[96, 96, 96])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    nx.tune_allocator()
    network, x = deepseg(arguments.size)
    layer = [name for name, module in network.named_modules() if isinstance(module, nn.Conv3d)][-2]
    table, name = Table("grad_cam"), "×".join(map(str, arguments.size))
    works: dict[str, Work] = {
        "F": lambda: floor_pass(network, x),
        "ours": lambda: ours(network, x, layer),
        **peers(network, x, layer, table),
    }
    for key in list(works):
        try:
            works[key]()
        except Exception as error:
            table.skip(f"{key} failed on this network: {str(error).splitlines()[0]}")
            del works[key]
    times = interleave(works, arguments.rounds)
    mine = median(times["ours"])
    table.add(Row(f"Grad-CAM of {layer}, {name}", "F", mine, median(times["F"]), bar=0.35,
                  detail=spread(times["ours"])))  # fmt: skip
    for key, seconds_each in times.items():
        if key not in ("F", "ours"):
            table.add(Row(f"Grad-CAM of {layer}, {name}", key, mine, median(seconds_each)))
    table.write()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
