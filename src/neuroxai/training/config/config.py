"""What a training run is asked to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from neuroxai.data.case import REGIONS


@dataclass(frozen=True)
class PhantomSource:
    """Synthetic cases; each pair of seeds is ``[first, one after the last]``."""

    train: tuple[int, int]
    test: tuple[int, int]
    validation: tuple[int, int] | None = None
    """Seeds that the training is watched on."""
    spacings: tuple[float, ...] = (1.0,)
    """Millimeters. Training seeds take them in turn, so one that is named more often is used more
    often; each test seed is made at all of them, once."""
    variant: str | None = None
    wide: float = 0.0
    """Share of the training seeds that are made wide, far from the typical case; held-out seeds
    are then made both ways."""


@dataclass(frozen=True)
class CohortSource:
    """A folder of cases in any layout, split by patient."""

    folder: str
    test_fraction: float = 0.2
    validation_fraction: float = 0.0
    """Share of the patients not held out that the training is watched on."""
    test: tuple[str, ...] = ()
    """Patients held out by name; when empty, ``test_fraction`` of them are drawn with the seed."""
    folds: int = 0
    """Parts of a cross validation, in place of ``test_fraction``; 0 for none."""
    fold: int = 0
    """Which of them is held out, from 0 on."""
    split: str | None = None
    """``split.csv`` of another run, to be followed to the letter."""


@dataclass(frozen=True)
class DataSource:
    """Exactly one of the sources."""

    phantom: PhantomSource | None = None
    cohort: CohortSource | None = None
    pictures: CohortSource | None = None
    """A folder of class folders with PNG or JPEG pictures; each picture counts as a patient."""


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; 0 (or an interval of one point) turns a step off."""

    flip: tuple[bool, ...] = (True, True, True)
    """Per axis X, Y, Z (slices: X, Y)."""
    zoom: tuple[float, float] = (0.8, 1.25)
    anisotropy: float = 1.15
    """Each axis is scaled further by up to this factor, either way."""
    rotation: float = 12.0
    """Degrees about each axis, at most."""
    tone: float = 0.35
    """Strength of a random monotone curve over each modality's gray values."""
    gamma: tuple[float, float] = (0.65, 1.55)
    contrast: tuple[float, float] = (0.75, 1.3)
    brightness: float = 0.1
    bias: float = 0.25
    """Log amplitude of a smooth multiplicative field."""
    noise: float = 0.06
    """Standard deviation of added noise, at most, as a fraction of the range."""
    blur: float = 0.9
    """Width of a Gaussian in voxels, at most."""
    thick_slices: float = 0.15
    """Probability that one axis is coarsened to half or a third of its resolution."""
    ceiling: tuple[float, float] = (0.4, 1.0)
    """Share of its range that a modality is scaled down to. A network's input is scaled by its
    brightest voxel, so one bright vessel, or a scrap of scalp, darkens all the rest."""


@dataclass(frozen=True)
class Config:
    """A training run. The YAML file holds these names and nothing else."""

    name: str
    task: Literal["segmentation", "classification"]
    architecture: str
    modalities: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    data: DataSource
    initial: str | None = None
    """Checkpoint folder, or shipped network, whose weights the training starts from."""
    pretrained: str | None = None
    """Weights of a torchvision ResNet-50 as safetensors, for all layers but the paper's own head;
    ``neuroxai convert torch`` makes them from the ``.pth`` file."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ("background", "NCR", "ED", "ET")
    patch: tuple[int, ...] = (128, 128, 128)
    """Edges in voxels along X, Y, Z."""
    tumor_fraction: float = 0.7
    """Share of patches whose center lies in the tumor."""
    slices_per_case: int = 8
    focus_steps: int = 0
    """First steps of a classifier that show squares around the tumor, not whole slices."""
    focus_size: int = 48
    """Side of those squares in voxels."""
    hint: float = 0.0
    """Weight of showing a classifier, while it learns, which tissue lies where."""
    hint_layers: tuple[str, ...] = ("layer2", "layer3")
    """Layers whose maps are to tell the tissues apart."""
    batch: int = 4
    epochs: int | None = None
    max_steps: int | None = None
    max_minutes: float | None = None
    """Of the training itself; making and reading cases and the evaluation come on top."""
    accumulate: int = 1
    """Batches whose gradients make one step, where memory does not hold the batch that is meant."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "poly", "plateau", "constant"] = "cosine"
    warmup: float = 0.03
    """Fraction of the run over which the learning rate rises from zero."""
    average: float = 0.0
    """Decay of the running average of the weights that is kept in the end; 0 keeps the last."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the names of layers that rest for the first ``frozen_epochs``."""
    frozen_epochs: float = 0.0
    frozen_norms: bool = False
    """Let batch norms use the statistics they started with, as they will when the network is asked:
    for the end of a training in batches too small to tell them."""
    validate_every: float | None = None
    """Epochs between two looks at the validation cases; the best weights are kept."""
    patience: int | None = None
    """Looks without a better score after which the training ends."""
    shift_outputs: bool = False
    """Set the levels of a segmenter's outputs on the validation cases in the end, for the best
    Dice; what was added to each class's bias is in the card."""
    clip: float = 5.0
    """Largest norm of the gradient; 0 for no limit."""
    class_weights: tuple[float, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["auto", "32", "16", "bf16"] = "auto"
    """Of the network's arithmetic; auto is bf16 on a GPU that has it, else 16; 32 on a CPU."""
    channels_last: bool | None = None
    """Memory layout of the feature maps; null picks it on a GPU only."""
    seed: int = 0
    """From 0 to 9999999999999."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    """GPUs (on a CPU, processes) that train together, each on batches of its own."""
    workers: int | None = None
    """Processes that make and read cases; null takes all cores."""
    cache: str | None = None
    """Folder for prepared cases; null is the user's cache folder."""
    save_every: int = 500
    """Steps between two writings of ``last.ckpt``."""
    keep_last: bool = False
    """Keep ``last.ckpt`` after the run has ended."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""
    output_dtype: Literal["float32", "float16"] = "float32"
    smallest_enhancement_mm3: float = 0.0
    """Enhancing tumor of less in all is called necrosis, wherever the network is asked; its card
    says so, and its metrics are measured so."""
    license: str = "Apache-2.0"

    @property
    def regions(self) -> dict[str, tuple[str, ...]]:
        """The nested tumor regions that these classes make up; none for a classifier."""
        if self.task != "segmentation":
            return {}
        return {
            region: members
            for region, members in REGIONS.items()
            if all(member in self.classes for member in members)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain tables, lists, numbers and text, as the YAML file holds them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def digest(self) -> str:
        """Return a hash of all that decides the result, so not of device, workers or folders."""
        table = self.to_dict()
        for key in ("device", "workers", "cache", "save_every", "keep_last", "tensorboard"):
            del table[key]
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
