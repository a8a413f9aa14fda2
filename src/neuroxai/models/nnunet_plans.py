"""What an nnU-Net's plans say: the network, the preprocessing, the windows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from neuroxai.core.errors import ModelError
from neuroxai.core.probe.windows import Windows
from neuroxai.models.formats import PLANS
from neuroxai.models.nnunet_networks import NNUNet, Shape
from neuroxai.models.nnunet_slices import thickened

_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_READERS: Mapping[str, str | None] = {
    "SimpleITKIO": None, "NibabelIO": None, "NibabelIOWithReorient": "RAS",
}  # fmt: skip
"""How scans are read: their axes as stored, or turned; all hand them on in the order z, y, x."""

_OPERATION = re.compile(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)")
_FLOAT16 = 10.0
"""What nnU-Net scales its importance map by before it rounds it to float16."""


@dataclass(frozen=True)
class Configuration:
    """One configuration of the plans, its inheritance followed.

    Attributes
    ----------
    source, name
        The plans' file, and the configuration's name.
    table
        Its entries.
    network, arguments
        The network's class, and what it is built with.
    classes
        Arguments that name classes of torch.nn.
    """

    source: Path
    name: str
    table: Mapping[str, Any]
    network: str
    arguments: Mapping[str, Any]
    classes: tuple[str, ...]

    @property
    def slices(self) -> bool:
        """Whether it is a 2D one, which answers slice by slice."""
        return len(self.table["patch_size"]) == 2

    @property
    def patch(self) -> tuple[int, ...]:
        """The window, of one slice for a 2D configuration."""
        size = tuple(self.table["patch_size"])
        return (1, *size) if self.slices else size


def read_configuration(plans: Mapping[str, Any], folder: Path) -> Configuration:
    """Return the configuration that the folder's name ends in, or the only one.

    Raises
    ------
    ModelError
        If there is none, or it is a cascade's.
    """
    source, known = folder / PLANS, plans.get("configurations")
    if not isinstance(known, Mapping) or not known:
        raise ModelError(f"{source}: names no configurations")
    name = folder.resolve().name.rpartition("__")[2]
    if name not in known:
        name = next(iter(known))
        if len(known) > 1:
            raise ModelError(
                f"{folder}: its name does not end in one of the configurations of {PLANS} "
                f"({', '.join(known)}); rename it to nnUNetTrainer__nnUNetPlans__CONFIGURATION"
            )
    table = _inherited(known, name, source)
    if table.get("previous_stage"):
        raise ModelError(
            f"{source}: {name} is a cascade's second stage, which needs the first one's answer; "
            "only single networks are supported"
        )
    patch = table.get("patch_size")
    if not (_whole_numbers(patch, 3) or _whole_numbers(patch, 2)):
        raise ModelError(
            f"{source}: the patch_size of {name} is {patch!r}, expected three lengths in "
            "voxels, or two for slices"
        )
    return Configuration(source, name, table, *_architecture(table, source))


def _inherited(known: Mapping[str, Any], name: str, source: Path) -> dict[str, Any]:
    """Return a configuration's entries, and those that it takes from others."""
    table: dict[str, Any] = {}
    at: Any = name
    for _ in known:
        found = known.get(at)
        if not isinstance(found, Mapping):
            raise ModelError(f"{source}: there is no configuration {at!r}")
        table = {**found, **table}
        at = found.get("inherits_from")
        if at is None:
            return table
    raise ModelError(f"{source}: the configuration {name!r} inherits from itself")


def _architecture(
    table: Mapping[str, Any], source: Path
) -> tuple[str, Mapping[str, Any], tuple[str, ...]]:
    """Return the network's class, its arguments, and those of them that name classes."""
    described = table.get("architecture")
    if isinstance(described, Mapping):
        network, arguments = described.get("network_class_name"), described.get("arch_kwargs")
        classes = described.get("_kw_requires_import", ())
        if isinstance(arguments, Mapping) and isinstance(classes, list | tuple):
            return str(network), arguments, tuple(map(str, classes))
        raise ModelError(f"{source}: the architecture has no table arch_kwargs")
    # Plans written before version 2.4.
    try:
        stages = table["n_conv_per_stage_encoder"]
        axes = len(table["patch_size"])
        widest, first = int(table["unet_max_num_features"]), int(table["UNet_base_num_features"])
        network = str(table["UNet_class_name"])
        blocks = "n_conv_per_stage" if network == "PlainConvUNet" else "n_blocks_per_stage"
        arguments = {
            "n_stages": len(stages),
            "features_per_stage": [min(first * 2**i, widest) for i in range(len(stages))],
            "conv_op": f"torch.nn.Conv{axes}d",
            "kernel_sizes": table["conv_kernel_sizes"],
            "strides": table["pool_op_kernel_sizes"],
            blocks: stages,
            "n_conv_per_stage_decoder": table["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{source}: says nothing of the network ({error!r})") from error
    return network, arguments, ("conv_op", "norm_op", "nonlin")


def build_network(configuration: Configuration, inputs: int, outputs: int) -> nn.Module:
    """Build the network that the plans describe, without deep supervision.

    That of a 2D configuration is built over the volume, with kernels one slice thick.

    Raises
    ------
    ModelError
        If its class or an argument is none that is known.
    """
    source = configuration.source
    name = configuration.network.rpartition(".")[2]
    if name not in _NETWORKS:
        raise ModelError(
            f"{source}: the network is {configuration.network!r}, expected one of "
            f"{', '.join(_NETWORKS)}; give another as --model package.module:factory"
        )
    arguments = dict(configuration.arguments)
    for key in configuration.classes:
        if arguments.get(key) is not None:
            arguments[key] = _operation(arguments[key], key, source)
    try:
        if configuration.slices:
            arguments = thickened(arguments)
        with torch.random.fork_rng(devices=[]):
            return NNUNet(Shape(**arguments), inputs, outputs)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ModelError(f"{source}: {name} cannot be built as it says ({error})") from error


def _operation(value: Any, key: str, source: Path) -> type[nn.Module]:
    """Return a class of ``torch.nn`` by its name; nothing else is looked up."""
    match = _OPERATION.fullmatch(str(value))
    found = getattr(nn, match[1], None) if match else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"{source}: {key} is {value!r}, expected a class of torch.nn")
    return found


def read_preprocessing(
    plans: Mapping[str, Any], configuration: Configuration, modalities: tuple[str, ...]
) -> tuple[dict[str, Any], Windows]:
    """Return the keys of our preprocessing, and the windows.

    Raises
    ------
    ModelError
        If scans are read or normalized in a way that is not known here.
    """
    source = configuration.source
    table = configuration.table
    reader = str(plans.get("image_reader_writer"))
    if reader not in _READERS:
        raise ModelError(
            f"{source}: image_reader_writer is {reader!r}, known are {', '.join(_READERS)}"
        )
    if table.get("preprocessor_name") != "DefaultPreprocessor":
        raise ModelError(
            f"{source}: preprocessor_name is {table.get('preprocessor_name')!r}, expected "
            "'DefaultPreprocessor'"
        )
    forward = plans.get("transpose_forward")
    if not isinstance(forward, list) or sorted(forward, key=str) != [0, 1, 2]:
        raise ModelError(f"{source}: transpose_forward is {forward!r}, expected three axes")
    spacing = table.get("spacing")
    axes = 2 if configuration.slices else 3
    if not isinstance(spacing, list) or len(spacing) != axes:
        raise ModelError(f"{source}: spacing is {spacing!r}, expected {axes} lengths in mm")
    # A 2D configuration takes slices as far apart as they are.
    voxel = [*[None] * (3 - axes), *(float(mm) for mm in spacing)]
    size = configuration.patch
    recipe = {
        "modalities": list(modalities),
        "intensity": _intensity(table, source),
        "size": None,
        "clip": None,
        "orientation": _READERS[reader],
        "axis_order": [(2, 1, 0)[axis] for axis in forward],
        "crop_to_brain": True,
        "voxel_mm": voxel,
        "resampling": _resampling(table),
        "divisor": _divisor(configuration),
    }
    return recipe, Windows(size, _importance(size), overlap=0.5, even=True)


def _intensity(table: Mapping[str, Any], source: Path) -> str:
    schemes, masked = table.get("normalization_schemes"), table.get("use_mask_for_norm")
    if not isinstance(schemes, list) or not isinstance(masked, list):
        raise ModelError(f"{source}: normalization_schemes and use_mask_for_norm are missing")
    asked = set(zip(map(str, schemes), map(bool, masked), strict=False))
    if asked == {("ZScoreNormalization", True)}:
        return "zscore_filled"
    if asked == {("ZScoreNormalization", False)}:
        return "zscore_box"
    if {scheme for scheme, _ in asked} == {"NoNormalization"}:
        return "none"
    raise ModelError(
        f"{source}: normalization_schemes are {schemes} with use_mask_for_norm {masked}; expected "
        "ZScoreNormalization or NoNormalization, the same for every channel"
    )


def _resampling(table: Mapping[str, Any]) -> str:
    """Return ``nnunet`` where the plans ask for nnU-Net's usual way, which is known here."""
    usual = "resample_data_or_seg_to_shape"
    for kind, order in (("data", 3), ("probabilities", 1)):
        options = table.get(f"resampling_fn_{kind}_kwargs")
        if table.get(f"resampling_fn_{kind}") != usual or not isinstance(options, Mapping):
            return "refuse"
        asked = {key: options.get(key) for key in ("order", "order_z", "force_separate_z")}
        if asked != {"order": order, "order_z": 0, "force_separate_z": None}:
            return "refuse"
    return "nnunet"


def _divisor(configuration: Configuration) -> int:
    strides = configuration.arguments.get("strides")
    axes = 2 if configuration.slices else 3
    if not isinstance(strides, list) or not all(_whole_numbers(each, axes) for each in strides):
        raise ModelError(
            f"{configuration.source}: strides is {strides!r}, expected {axes} numbers a stage"
        )
    return int(np.prod(np.array(strides), axis=0).max())


def _importance(size: tuple[int, ...]) -> torch.Tensor:
    """Return nnU-Net's weights of a window: a Gaussian of an eighth of its edges, in float16."""
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros(size)
    impulse[tuple(n // 2 for n in size)] = 1
    bell = gaussian_filter(impulse, [n / 8 for n in size], mode="constant")
    rounded = torch.from_numpy(bell / bell.max() * _FLOAT16).half().float()
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded


def _whole_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    )
