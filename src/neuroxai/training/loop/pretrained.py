"""A ResNet-50 that starts from weights learned on photographs."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from neuroxai.core.errors import TrainingError
from neuroxai.models.weights import read_weights

HEADS = ("fc.", "dense1.", "dense2.")
"""Layers that a weight file need not share: torchvision's own head, and the paper's."""


def load_pretrained(network: nn.Module, path: str | Path) -> str:
    """Give every layer but the head the weights of a torchvision file; return the file's sha256.

    Strict: each parameter and buffer must be there, in its shape, and nothing else but the file's
    own head. What fits in part is another network, and would start from noise without a word.

    Parameters
    ----------
    network
        A :class:`~neuroxai.models.resnet.ResNet50` of three channels.
    path
        Safetensors; ``neuroxai convert torch resnet50.pth resnet50.safetensors --trust`` makes it
        from torchvision's pickle.

    Raises
    ------
    TrainingError
        Naming the file and the first tensor that is missing, left over, or of another shape.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise TrainingError(
            f"{file}: pretrained weights are read as safetensors alone; "
            f"neuroxai convert torch {file.name} {file.stem}.safetensors --trust makes them"
        )
    weights = read_weights(file)
    found = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(HEADS)}
    wanted = {
        name: tensor for name, tensor in network.state_dict().items() if not name.startswith(HEADS)
    }
    # Counters of batches tell nothing of what was learned; older files lack them.
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = sorted(set(wanted) - set(found) - optional)
    extra = sorted(set(found) - set(wanted))
    if missing or extra:
        what = f"has no {missing[0]}" if missing else f"has {extra[0]}, which the network lacks"
        raise TrainingError(f"{file}: {what}; expected the weights of a torchvision ResNet-50")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise TrainingError(
                f"{file}: {name} has the shape {tuple(tensor.shape)}, expected "
                f"{tuple(wanted[name].shape)}; pretrained weights need three input channels"
            )
    network.load_state_dict(found, strict=False)
    return weights.sha256
