"""The training configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from neuroxai.core.errors import NeuroXAIError, TrainingError, suggestion
from neuroxai.data.case import CLASSES, REGIONS
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.files.schema import List, Schema, Table
from neuroxai.training.config.augmentation import Augmentation
from neuroxai.training.config.number_types import (
    FROM_TEXT,
    Count,
    Fraction,
    Index,
    NonNegative,
    Positive,
)
from neuroxai.training.config.sources import DataSource

_SEEDS = 10**13
"""Every step seeds torch with about a million times the seed, which must stay below 2^64."""
_MACHINE_KEYS = ("device", "workers", "cache", "save_every", "keep_last", "tensorboard")


class Config(Schema):
    """Settings of a training run: the content of its YAML file."""

    title: ClassVar[str] = "configuration"
    error: ClassVar[type[NeuroXAIError]] = TrainingError

    name: str
    """Name of the network."""
    task: Literal["segmentation", "classification"] = Field(examples=["segmentation"])
    """What the network learns."""
    architecture: str = Field(examples=["deepseg"])
    """A key of ``models.checkpoint.ARCHITECTURES``."""
    modalities: List[tuple[str, ...]] = Field(examples=[["T1", "FLAIR"]])
    """Names of the input channels in order."""
    preprocessing: Preprocessing = Field(examples=[{"intensity": "zscore"}])
    """Preprocessing recipe; its ``modalities`` are those above and can be left out."""
    data: DataSource = Field(examples=[{"cohort": {"folder": "BraTS2021"}}])
    """Where the cases come from."""
    initial: str | None = None
    """Checkpoint folder or shipped network to take the initial weights from."""
    pretrained: str | None = None
    """Safetensors file with the weights of a torchvision ResNet-50, for all layers but the head;
    ``neuroxai convert torch`` makes it from the ``.pth`` file."""
    arguments: Table = Field(default_factory=dict)
    """Keyword arguments of the architecture."""
    classes: List[tuple[str, ...]] = ("background", "NCR", "ED", "ET")
    """Names of the output channels in order."""
    patch: List[tuple[int, ...]] = (128, 128, 128)
    """Patch size of a segmenter in voxels along X, Y, Z."""
    tumor_fraction: Fraction = 0.7
    """Fraction of the patches that are centered on tumor."""
    slices_per_case: Count = 8
    """Axial slices of a classifier per case."""
    focus_steps: Index = 0
    """Number of first steps in which a classifier sees squares around the tumor instead of whole
    slices."""
    focus_size: Count = 48
    """Edge of these squares in voxels."""
    auxiliary_loss: NonNegative = 0.0
    """Weight of a classifier's auxiliary loss, which predicts the tissue class at each position."""
    auxiliary_loss_layers: List[tuple[str, ...]] = ("layer2", "layer3")
    """Layers whose feature maps the auxiliary loss is computed from."""
    batch: Count = 4
    """Batch size."""
    epochs: Count | None = None
    """Number of epochs; an epoch is one patch of every case, or each of its slices."""
    max_steps: Count | None = None
    """Largest number of optimizer steps."""
    max_minutes: Positive | None = None
    """Largest duration in minutes, without preparation of the cases and evaluation."""
    accumulate: Count = 1
    """Batches per optimizer step, if memory cannot hold the intended batch."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Optimizer."""
    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: NonNegative = 1e-4
    """Weight decay."""
    schedule: Literal["cosine", "poly", "plateau", "constant"] = "cosine"
    """Shape of the learning rate after the warmup."""
    warmup: Fraction = 0.03
    """Fraction of the run over which the learning rate rises from zero."""
    average: Fraction = 0.0
    """Decay of the exponential moving average of the weights that is saved; 0 saves the last
    weights."""
    frozen_layers: List[tuple[str, ...]] = ()
    """Prefixes of the names of layers that stay frozen for the first ``frozen_epochs``."""
    frozen_epochs: NonNegative = 0.0
    """Number of epochs with frozen layers."""
    frozen_norms: bool = False
    """Keep the statistics of batch norms fixed, for the end of a training in small batches."""
    validate_every: Positive | None = None
    """Epochs between validations; the weights with the best score are saved."""
    patience: Count | None = None
    """Validations without a better score after which the training stops."""
    logit_bias: bool = False
    """Fit a constant per class to a segmenter's logits after the training, for the best Dice on the
    validation cases. It is added to the bias of the last layer and recorded in the card."""
    clip: NonNegative = 5.0
    """Largest norm of the gradient; 0 for no limit."""
    class_weights: List[tuple[NonNegative, ...]] = ()
    """Weight of each class in the loss; if empty, all are equal."""
    augmentation: Augmentation = Augmentation()
    """Random variation of the training images."""
    precision: Annotated[Literal["auto", "32", "16", "bf16"], BeforeValidator(str)] = "auto"
    """Floating-point precision; ``auto`` is 32 on a CPU, bf16 on a GPU that has it, else 16."""
    channels_last: bool | None = None
    """Memory layout of feature maps; null uses channels last on a GPU only."""
    seed: Annotated[int, Field(ge=0, lt=_SEEDS)] = 0
    """Seed of all random numbers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on."""
    devices: Count = 1
    """Number of GPUs (on a CPU, processes) that train together, each on its own batches."""
    workers: Count | None = None
    """Processes that prepare cases; null uses all cores."""
    cache: str | None = None
    """Folder for prepared cases; null uses the user's cache folder."""
    save_every: Count = 500
    """Steps between writes of ``last.ckpt``."""
    keep_last: bool = False
    """Keep ``last.ckpt`` after the run."""
    tensorboard: bool = False
    """Also write the log for TensorBoard."""
    output_dtype: Literal["float32", "float16"] = "float32"
    """Precision of the saved weights."""
    smallest_enhancement_mm3: Annotated[float, Field(ge=0, lt=1e9), FROM_TEXT] = 0.0
    """Smallest total volume of enhancing tumor in mm³; less is relabeled as necrosis wherever the
    network is used. It is stored in the card, and the card's metrics include it."""
    license: str = "Apache-2.0"
    """License of the weights."""

    @model_validator(mode="before")
    @classmethod
    def _share_modalities(cls, table: Any) -> Any:
        """Add the modalities to the preprocessing recipe, where a file need not repeat them."""
        if isinstance(table, Mapping) and "modalities" in table:
            recipe = table.get("preprocessing")
            if isinstance(recipe, Mapping):
                shared = {"modalities": table["modalities"], **recipe}
                return {**table, "preprocessing": shared}
        return table

    @field_validator("classes")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < max(2, len(names)):
            raise ValueError("at least two different names")
        return names

    @field_validator("class_weights")
    @classmethod
    def _some_weight(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if weights and not any(weights):
            raise ValueError("at least one number above 0")
        return weights

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.preprocessing.modalities != self.modalities:
            raise ValueError(
                f"preprocessing.modalities is {list(self.preprocessing.modalities)}, but "
                f"modalities is {list(self.modalities)}; leave preprocessing.modalities out"
            )
        if self.epochs is None and self.max_steps is None and self.max_minutes is None:
            raise ValueError("none of epochs, max_steps and max_minutes is set; set one")
        if self.initial is not None and self.pretrained is not None:
            raise ValueError("initial and pretrained are both set; keep one")
        if self.pretrained is not None and self.architecture != "resnet50":
            raise ValueError(
                f"pretrained is set, but architecture is {self.architecture!r}; only resnet50 has "
                "pretrained weights"
            )
        if self.frozen_epochs and not self.frozen_layers:
            raise ValueError("frozen_epochs is set, but frozen_layers is empty; name the layers")
        if self.data.pictures is not None and self.task != "classification":
            raise ValueError(
                f"task is {self.task!r}, expected 'classification': data.pictures has no "
                "segmentation"
            )
        return self

    @model_validator(mode="after")
    def _axes_match(self) -> Self:
        flip, patch = self.augmentation.flip, self.patch
        slices = self.task == "classification"
        if len(flip) != 3 and not (slices and len(flip) == 2):
            expected = "two values for X, Y" if slices else "three values for X, Y, Z"
            raise ValueError(
                f"augmentation.flip is {list(flip)}, expected {expected}, each true or false"
            )
        if not slices and (len(patch) != 3 or min(patch) <= 0):
            raise ValueError(
                f"patch is {list(patch)}, expected three whole numbers above 0, the edges along "
                "X, Y, Z"
            )
        return self

    @model_validator(mode="after")
    def _classes_match(self) -> Self:
        if self.class_weights and len(self.class_weights) != len(self.classes):
            raise ValueError(
                f"class_weights has {len(self.class_weights)} numbers, expected one for each of "
                f"{', '.join(self.classes)}"
            )
        if self.task == "segmentation":
            for name in self.classes:
                if name not in CLASSES:
                    raise ValueError(f"unknown class {name!r}; {suggestion(name, CLASSES)}")
            if self.classes[0] != "background":
                raise ValueError(
                    f"classes begins with {self.classes[0]!r}, expected 'background' first"
                )
        return self

    @model_validator(mode="after")
    def _validation_possible(self) -> Self:
        if self.patience is not None and self.validate_every is None:
            raise ValueError("patience is set, but validate_every is not; set it, in epochs")
        if self.logit_bias and self.architecture != "deepseg":
            raise ValueError(
                f"logit_bias is for segmenters, but architecture is {self.architecture!r}; leave "
                "it out"
            )
        keys = {"validate_every": self.validate_every is not None, "logit_bias": self.logit_bias}
        for key in (key for key, used in keys.items() if used):
            if not self.data.has_validation:
                raise ValueError(
                    f"{key} needs validation cases; set data.cohort.validation_fraction or "
                    "data.phantom.validation"
                )
            if self.task == "segmentation" and not self.regions:
                raise ValueError(
                    f"{key} scores regions, but classes form none of {', '.join(REGIONS)}; add "
                    f"classes or leave {key} out"
                )
        return self

    @property
    def regions(self) -> dict[str, tuple[str, ...]]:
        """Nested tumor regions that the classes form; none for a classifier."""
        if self.task != "segmentation":
            return {}
        return {
            region: members
            for region, members in REGIONS.items()
            if all(member in self.classes for member in members)
        }

    def digest(self) -> str:
        """Return a hash of the settings that determine the result.

        The device, folders for temporary files and the like are left out.
        """
        table = {key: value for key, value in self.to_dict().items() if key not in _MACHINE_KEYS}
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
