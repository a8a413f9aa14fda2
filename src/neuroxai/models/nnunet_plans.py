"""Reading of nnU-Net's ``plans.json``: network, preprocessing and sliding windows."""

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
from neuroxai.models.nnunet_networks import Architecture, NNUNet
from neuroxai.models.nnunet_slices import volume_arguments

_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_READERS: Mapping[str, str | None] = {
    "SimpleITKIO": None, "NibabelIO": None, "NibabelIOWithReorient": "RAS",
}  # fmt: skip
"""Orientation per reader, None for the stored one; all return axes in the order z, y, x."""

_OPERATION = re.compile(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)")
_IMPORTANCE_SCALE = 10.0
"""Factor that nnU-Net applies to its importance map before rounding to float16."""


@dataclass(frozen=True)
class Configuration:
    """A configuration of the plans, with inherited entries.

    Attributes
    ----------
    source
        The file of the plans.
    name
        Name of the configuration.
    table
        Entries of the configuration.
    network, arguments
        Class of the network, and its keyword arguments.
    classes
        Arguments whose values are names of classes in ``torch.nn``.
    """

    source: Path
    name: str
    table: Mapping[str, Any]
    network: str
    arguments: Mapping[str, Any]
    classes: tuple[str, ...]

    @property
    def slices(self) -> bool:
        """Whether the network is 2D and is applied to every slice."""
        return len(self.table["patch_size"]) == 2

    @property
    def patch(self) -> tuple[int, ...]:
        """Size of a window, one slice thick for a 2D configuration."""
        size = tuple(self.table["patch_size"])
        return (1, *size) if self.slices else size


def read_configuration(plans: Mapping[str, Any], folder: Path) -> Configuration:
    """Return the configuration named at the end of the folder's name, or the only one.

    Raises
    ------
    ModelError
        If no configuration matches, or it belongs to a cascade.
    """
    source, known = folder / PLANS, plans.get("configurations")
    if not isinstance(known, Mapping) or not known:
        raise ModelError(f"{source}: configurations is {known!r}, expected at least one")
    name = folder.resolve().name.rpartition("__")[2]
    if name not in known:
        name = next(iter(known))
        if len(known) > 1:
            raise ModelError(
                f"{folder}: the name does not end in a configuration of {PLANS} "
                f"({', '.join(known)}); rename it to nnUNetTrainer__nnUNetPlans__CONFIGURATION"
            )
    table = _inherited(known, name, source)
    if table.get("previous_stage"):
        raise ModelError(
            f"{source}: {name} is the second stage of a cascade, whose input includes the output "
            f"of the first; explain the first stage, {table['previous_stage']}, or a network "
            "trained as 3d_fullres"
        )
    patch = table.get("patch_size")
    if not (_whole_numbers(patch, 3) or _whole_numbers(patch, 2)):
        raise ModelError(
            f"{source}: the patch_size of {name} is {patch!r}, expected three lengths in "
            "voxels, or two for slices"
        )
    return Configuration(source, name, table, *_architecture(table, source))


def _inherited(known: Mapping[str, Any], name: str, source: Path) -> dict[str, Any]:
    """Return the entries of a configuration, including inherited ones."""
    table: dict[str, Any] = {}
    at: Any = name
    for _ in known:
        found = known.get(at)
        if not isinstance(found, Mapping):
            raise ModelError(f"{source}: unknown configuration {at!r}; known: {', '.join(known)}")
        table = {**found, **table}
        at = found.get("inherits_from")
        if at is None:
            return table
    raise ModelError(f"{source}: the configuration {name!r} inherits from itself")


def _architecture(
    table: Mapping[str, Any], source: Path
) -> tuple[str, Mapping[str, Any], tuple[str, ...]]:
    """Return the network's class, its arguments, and the keys of those that are classes."""
    described = table.get("architecture")
    if isinstance(described, Mapping):
        network, arguments = described.get("network_class_name"), described.get("arch_kwargs")
        classes = described.get("_kw_requires_import", ())
        if isinstance(arguments, Mapping) and isinstance(classes, list | tuple):
            return str(network), arguments, tuple(map(str, classes))
        raise ModelError(f"{source}: architecture.arch_kwargs is {arguments!r}, expected a mapping")
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
        raise ModelError(
            f"{source}: the network's architecture is missing or invalid ({error!r})"
        ) from error
    return network, arguments, ("conv_op", "norm_op", "nonlin")


def build_network(configuration: Configuration, inputs: int, outputs: int) -> nn.Module:
    """Build the network of the plans, without deep supervision.

    A 2D configuration becomes a network of volumes with kernels one slice thick.

    Raises
    ------
    ModelError
        If the class or an argument is not supported.
    """
    source = configuration.source
    name = configuration.network.rpartition(".")[2]
    if name not in _NETWORKS:
        raise ModelError(
            f"{source}: the network is {configuration.network!r}, expected one of "
            f"{', '.join(_NETWORKS)}; load others with --model package.module:factory"
        )
    arguments = dict(configuration.arguments)
    for key in configuration.classes:
        if arguments.get(key) is not None:
            arguments[key] = _operation(arguments[key], key, source)
    try:
        if configuration.slices:
            arguments = volume_arguments(arguments)
        with torch.random.fork_rng(devices=[]):
            return NNUNet(Architecture(**arguments), inputs, outputs)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"{source}: {name} cannot be built with its arguments ({error})"
        ) from error


def _operation(value: Any, key: str, source: Path) -> type[nn.Module]:
    """Return a class of ``torch.nn`` by its name; other modules are not searched."""
    match = _OPERATION.fullmatch(str(value))
    found = getattr(nn, match[1], None) if match else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"{source}: {key} is {value!r}, expected a class of torch.nn")
    return found


def read_preprocessing(
    plans: Mapping[str, Any], configuration: Configuration, modalities: tuple[str, ...]
) -> tuple[dict[str, Any], Windows]:
    """Return the preprocessing recipe and the sliding windows.

    Raises
    ------
    ModelError
        If the reader or the normalization is not supported.
    """
    source = configuration.source
    table = configuration.table
    reader = str(plans.get("image_reader_writer"))
    if reader not in _READERS:
        raise ModelError(
            f"{source}: image_reader_writer is {reader!r}, expected one of {', '.join(_READERS)}"
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
    # A 2D configuration does not change the distance between slices, and plans of pretrained
    # networks may not resample at all.
    voxel = [*[None] * (3 - axes), *(None if mm is None else float(mm) for mm in spacing)]
    resampling = _resampling(table)
    size = configuration.patch
    recipe = {
        "modalities": list(modalities),
        "intensity": _intensity(plans, table, source),
        "size": None,
        "clip": None,
        "orientation": _READERS[reader],
        "axis_order": [(2, 1, 0)[axis] for axis in forward],
        "crop_to_brain": True,
        "voxel_mm": voxel,
        **resampling,
        "divisor": _divisor(configuration),
    }
    return recipe, Windows(size, _importance(size), overlap=0.5, even=True)


def _intensity(plans: Mapping[str, Any], table: Mapping[str, Any], source: Path) -> Any:
    """Return the normalization: one name, or a list with one entry per channel."""
    schemes, masked = table.get("normalization_schemes"), table.get("use_mask_for_norm")
    if not (isinstance(schemes, list) and isinstance(masked, list) and len(schemes) == len(masked)):
        raise ModelError(
            f"{source}: normalization_schemes is {schemes!r} and use_mask_for_norm {masked!r}, "
            "expected lists with one entry per channel"
        )
    properties = plans.get("foreground_intensity_properties_per_channel")
    known = properties if isinstance(properties, Mapping) else {}
    found = [
        _scheme(str(scheme), bool(mask), known.get(str(channel)), source)
        for channel, (scheme, mask) in enumerate(zip(schemes, masked, strict=True))
    ]
    same = isinstance(found[0], str) and all(each == found[0] for each in found)
    return found[0] if same else found


def _scheme(scheme: str, masked: bool, properties: Any, source: Path) -> Any:
    """Return the normalization of one channel."""
    names = {
        "ZScoreNormalization": "zscore_filled" if masked else "zscore_box",
        "RescaleTo01Normalization": "minmax_box",
    }
    if scheme in names:
        return names[scheme]
    if scheme == "NoNormalization":
        # Unlike a scan, a channel that is not normalized, such as a mask, may be constant.
        return {}
    if scheme == "RGBTo01Normalization":
        return {"divide": 255.0}
    if scheme == "CTNormalization":
        keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
        given = properties if isinstance(properties, Mapping) else {}
        values = [float(given[key]) for key in keys if isinstance(given.get(key), int | float)]
        if len(values) < len(keys):
            raise ModelError(
                f"{source}: CTNormalization needs {', '.join(keys)} of each channel in "
                f"foreground_intensity_properties_per_channel, got {properties!r}"
            )
        low, high, mean, deviation = values
        return {"low": low, "high": high, "subtract": mean, "divide": max(deviation, 1e-8)}
    supported = (*names, "NoNormalization", "RGBTo01Normalization", "CTNormalization")
    raise ModelError(
        f"{source}: the normalization {scheme!r} is not supported; supported: "
        f"{', '.join(supported)}; with another one, load the network with --model "
        "package.module:factory and a card"
    )


def _resampling(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of resampling; scans of other voxels are refused if it is not known."""
    orders, separate = [], set()
    for kind in ("data", "probabilities"):
        function = table.get(f"resampling_fn_{kind}")
        options = table.get(f"resampling_fn_{kind}_kwargs")
        if not isinstance(options, Mapping):
            return {"resampling": "refuse"}
        if function == "resample_torch_fornnunet":
            linear = options.get("mode", "linear") == "linear"
            order = 1 if linear and "aniso_axis_mode" not in options else None
        else:
            known = function == "resample_data_or_seg_to_shape" and options.get("order_z") == 0
            order = options.get("order") if known else None
        forced = options.get("force_separate_z")
        if order not in (0, 1, 3) or forced not in (None, False):
            return {"resampling": "refuse"}
        orders.append(order)
        separate.add(forced is None)
    if len(separate) > 1:
        return {"resampling": "refuse"}
    return {
        "resampling": "nnunet",
        "resampling_orders": orders,
        "separate_slices": separate == {True},
    }


def _divisor(configuration: Configuration) -> int:
    strides = configuration.arguments.get("strides")
    axes = 2 if configuration.slices else 3
    if not isinstance(strides, list) or not all(_whole_numbers(each, axes) for each in strides):
        raise ModelError(
            f"{configuration.source}: strides is {strides!r}, expected {axes} numbers per stage"
        )
    return int(np.prod(np.array(strides), axis=0).max())


def _importance(size: tuple[int, ...]) -> torch.Tensor:
    """Return nnU-Net's importance map: a Gaussian with σ of an eighth of each edge, in float16."""
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros(size)
    impulse[tuple(n // 2 for n in size)] = 1
    gaussian = gaussian_filter(impulse, [n / 8 for n in size], mode="constant")
    rounded = torch.from_numpy(gaussian / gaussian.max() * _IMPORTANCE_SCALE).half().float()
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded


def _whole_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    )
