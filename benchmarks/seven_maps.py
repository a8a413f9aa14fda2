"""The paper's seven maps on the command line, against a script with captum and PAIR saliency.

python benchmarks/seven_maps.py [--rounds 1] [--ig 32] [--gig 50] [--samples 16]

One phantom of 2 mm (96³), target ET, the shipped DeepSeg, the same number of steps. Whole processes
are timed, including imports and reading; only ours writes and draws its maps. The script has frozen
weights, a module that returns the mean of the region, captum's Saliency, GuidedBackprop,
IntegratedGradients, NoiseTunnel, LayerGradCam and GuidedGradCam, and PAIR's GuidedIG, on the tensor
from our preprocessing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import Row, Table, median, older_numpy, seconds, spread
from torch import Tensor, nn

from neuroxai.methods import PAPER

LAST = "decoder.4.conv2"


class Mean(nn.Module):
    """Mean logit of ET over the image, the target of both."""

    def __init__(self, network: nn.Module, channel: int) -> None:
        super().__init__()
        self.network, self.channel = network, channel

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B,)``."""
        out: Tensor = self.network(x)[:, self.channel].flatten(1).mean(1)
        return out


def peer(case: Path, ig: int, gig: int, samples: int) -> None:
    """Compute the seven maps with captum and PAIR."""
    from captum import attr
    from saliency.core import INPUT_OUTPUT_GRADIENTS, GuidedIG

    import neuroxai as nx
    from neuroxai.workflows.preparation import prepare

    loaded = nx.load_model("deepseg-phantom")
    x = prepare(loaded, nx.read_case(case), None).x
    network = loaded.network.eval().requires_grad_(requires_grad=False)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    mean = Mean(network, loaded.card.classes.index("ET")).eval()
    layer = [m for m in network.modules() if isinstance(m, nn.Conv3d)][-2]
    attr.Saliency(mean).attribute(x, abs=False)
    attr.GuidedBackprop(mean).attribute(x)
    attr.IntegratedGradients(mean).attribute(x, n_steps=ig, internal_batch_size=1)
    sigma = 0.15 * float(x.max() - x.min())
    attr.NoiseTunnel(attr.Saliency(mean)).attribute(
        x,
        nt_type="smoothgrad",
        nt_samples=samples,
        nt_samples_batch_size=1,
        stdevs=sigma,
        abs=False,
    )
    attr.LayerGradCam(mean, layer).attribute(x, attr_dim_summation=True)
    attr.GuidedGradCam(mean, layer).attribute(x)

    def model(images: np.ndarray, *args: object, **more: object) -> dict[str, np.ndarray]:
        leaf = torch.from_numpy(images).float().requires_grad_()
        (gradient,) = torch.autograd.grad(mean(leaf).sum(), leaf)
        return {INPUT_OUTPUT_GRADIENTS: gradient.double().numpy()}

    image = x[0].double().numpy()
    with older_numpy():
        GuidedIG().GetMask(image, model, x_steps=gig, x_baseline=np.zeros_like(image),
                           max_dist=0.02, fraction=0.25)  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ig", type=int, default=32)
    parser.add_argument("--gig", type=int, default=50)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        peer(arguments.peer, arguments.ig, arguments.gig, arguments.samples)
        return
    steps = {
        "integrated_gradients.steps": arguments.ig,
        "guided_integrated_gradients.steps": arguments.gig,
        "smoothgrad.samples": arguments.samples,
    }
    command = str(Path(sys.executable).parent / "neuroxai")
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            [command, "phantom", "-o", f"{place}/cases", "--seed", "100003", "--count", "1",
             "--spacing", "2"],
            check=True, capture_output=True,
        )  # fmt: skip
        found = Path(place, "cases").glob("[!.]*/*.nii.gz")
        case = next(path.parent for path in found)

        def ours() -> None:
            # The same number of passes: the default rule takes additional forward passes.
            settings = [*(f"{name}={n}" for name, n in steps.items()),
                        "integrated_gradients.rule=midpoint"]  # fmt: skip
            options = [word for setting in settings for word in ("--set", setting)]
            options += [word for name in PAPER for word in ("--method", name)]
            subprocess.run([command, "explain", str(case), "--target", "ET", "-o", f"{place}/out",
                            *options], check=True, capture_output=True)  # fmt: skip

        def theirs() -> None:
            counts = [
                "--ig",
                str(arguments.ig),
                "--gig",
                str(arguments.gig),
                "--samples",
                str(arguments.samples),
            ]
            subprocess.run([sys.executable, __file__, "--peer", str(case), *counts], check=True,
                           capture_output=True)  # fmt: skip

        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(arguments.rounds):
            times["ours"].append(seconds(ours))
            times["theirs"].append(seconds(theirs))
    table = Table("seven_maps")
    settings = f"IG {arguments.ig}, GIG {arguments.gig}, SmoothGrad {arguments.samples}"
    table.add(Row(f"seven maps, command line ({settings}), 96³", "script with captum and PAIR",
                  median(times["ours"]), median(times["theirs"]), bar=0.35,
                  detail=spread(times["ours"])))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
