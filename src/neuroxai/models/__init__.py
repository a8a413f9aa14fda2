"""The two networks of the paper, and the checkpoints that hold trained ones."""

from neuroxai.models.card import Card
from neuroxai.models.checkpoint import ARCHITECTURES, save_checkpoint, shipped_models
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.loading import DEFAULT_MODEL, load_model
from neuroxai.models.model import Model
from neuroxai.models.resnet import ResNet50

__all__ = [
    "ARCHITECTURES",
    "DEFAULT_MODEL",
    "Card",
    "DeepSeg",
    "Model",
    "ResNet50",
    "load_model",
    "save_checkpoint",
    "shipped_models",
]
