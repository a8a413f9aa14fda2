"""Initialization of a ResNet-50 from torchvision's ImageNet weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from neuroxai.core.errors import TrainingError
from neuroxai.models.weights import read_weights

HEADS = ("fc.", "dense1.", "dense2.")
"""Prefixes of classification heads, torchvision's and the paper's; these are not transferred."""


def load_pretrained(network: nn.Module, path: str | Path) -> str:
    """Load torchvision weights into every layer but the head; return the file's SHA-256.

    Strict: apart from the heads, the file must have exactly the network's parameters and buffers,
    in their shapes. A partial match would leave layers at their random initialization.

    Parameters
    ----------
    network
        A :class:`~neuroxai.models.resnet.ResNet50` with three input channels.
    path
        Safetensors file. ``neuroxai convert torch resnet50.pth resnet50.safetensors --trust``
        converts torchvision's pickle.

    Raises
    ------
    TrainingError
        If a tensor is missing, unexpected or has another shape; names the file and the tensor.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise TrainingError(
            f"{file}: pretrained weights must be a safetensors file; convert them with "
            f"neuroxai convert torch {file.name} {file.stem}.safetensors --trust"
        )
    weights = read_weights(file)
    given = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(HEADS)}
    expected = {
        name: tensor for name, tensor in network.state_dict().items() if not name.startswith(HEADS)
    }
    # Batch counters do not affect the network, and older files lack them.
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(set(expected) - set(given) - optional)
    unexpected = sorted(set(given) - set(expected))
    if missing or unexpected:
        what = f"missing {missing[0]}" if missing else f"unexpected tensor {unexpected[0]}"
        raise TrainingError(f"{file}: {what}; expected the weights of a torchvision ResNet-50")
    for name, tensor in given.items():
        if tensor.shape != expected[name].shape:
            raise TrainingError(
                f"{file}: {name} has the shape {tuple(tensor.shape)}, expected "
                f"{tuple(expected[name].shape)}; pretrained weights need three input channels"
            )
    network.load_state_dict(given, strict=False)
    return weights.sha256
