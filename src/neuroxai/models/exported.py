"""Exported programs of ``torch.export``: graph and weights of a network in one archive."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.errors import ModelError
from neuroxai.models.card import read_description
from neuroxai.models.model import Model
from neuroxai.models.weights import LARGEST, read_bytes

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "aten::relu": torch.relu,
    "aten::relu_": torch.relu_,
    "aten::relu6": functional.relu6,
    "aten::leaky_relu": functional.leaky_relu,
    "aten::leaky_relu_": functional.leaky_relu_,
    "aten::prelu": torch.prelu,
    "aten::gelu": functional.gelu,
    "aten::silu": functional.silu,
    "aten::mish": functional.mish,
    "aten::elu": functional.elu,
    "aten::celu": functional.celu,
    "aten::selu": functional.selu,
    "aten::softplus": functional.softplus,
    "aten::hardswish": functional.hardswish,
    "aten::hardtanh": functional.hardtanh,
    "aten::hardtanh_": functional.hardtanh_,
    "aten::clamp": torch.clamp,
    "aten::clamp_min": torch.clamp_min,
}
"""Rectifiers in a program's graph, and the functions that backward rules intercept."""


def read_exported(path: Path, card: str | Path | None, *, trust: bool = False) -> Model:
    """Load a program written by ``torch.export.save``.

    Other input sizes than the exported one require dynamic axes. Layers keep their names but not
    their classes, so methods that use a layer need its name.

    An archive can contain pickles, compiled libraries, and expressions that are evaluated when it
    is read. Pickles and libraries are rejected, except for the example inputs, a pickle in every
    archive that is not read. Expressions require ``trust``.

    Parameters
    ----------
    path
        The ``.pt2`` file.
    card
        JSON file that describes the network; see :func:`~neuroxai.models.factory.read_factory`. By
        default ``card.json`` in the same folder.
    trust
        Confirms that the file comes from a trusted source.

    Raises
    ------
    ModelError
        If the file is not trusted, is not such an archive, or contains code.
    """
    found, output = read_description(
        Path(card) if card is not None else path.with_name("card.json"), architecture=path.name
    )
    program = read_program(path, trust=trust)
    return Model(
        program.network, found, path.parent, program.sha256, kind="an exported program",
        output_key=output,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Program:
    """An exported program that was read.

    Attributes
    ----------
    network
        Its network in evaluation mode.
    sha256
        SHA-256 of the file.
    input_shape
        Shape of the input that it was exported with, axes of variable length as None; None if it
        takes more than one input.
    """

    network: nn.Module
    sha256: str
    input_shape: tuple[int | None, ...] | None


def read_program(path: Path, *, trust: bool = False) -> Program:
    """Read a program written by ``torch.export.save``, see :func:`read_exported`.

    Raises
    ------
    ModelError
        If the file is not trusted, is not such an archive, or contains code.
    """
    if not trust:
        raise ModelError(
            f"{path}: an exported program contains expressions that run when it is read; if you "
            "trust its source, load it with --trust (trust=True)"
        )
    payload = read_bytes(path)
    try:
        with warnings.catch_warnings():
            # PyTorch warns about its own internals, which a user cannot change.
            warnings.simplefilter("ignore", FutureWarning)
            program = torch.export.load(io.BytesIO(_replace_example_inputs(payload, path)))
            network = torch.export.unflatten(program)
    except ModelError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{path}: cannot be read as an exported program ({first[:300]})"
        ) from error
    if any(_is_training(node) for node in program.graph.nodes):
        raise ModelError(f"{path}: exported in training mode; export network.eval() instead")
    _use_functions(network)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: {name} has values that are not finite")
    network.eval().requires_grad_(requires_grad=False)
    return Program(network, hashlib.sha256(payload).hexdigest(), _input_shape(program))


def _input_shape(program: Any) -> tuple[int | None, ...] | None:
    """Return the shape of a program's only input, with None for axes of variable length."""
    names = program.graph_signature.user_inputs
    values = [
        node.meta.get("val") for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]  # fmt: skip
    if len(values) != 1 or not isinstance(values[0], Tensor):
        return None
    return tuple(size if isinstance(size, int) else None for size in values[0].shape)


def _replace_example_inputs(payload: bytes, path: Path) -> bytes:
    """Return the archive with empty example inputs; raise if it contains code."""
    cleaned = io.BytesIO()
    empty = io.BytesIO()
    torch.save(((), {}), empty)
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive, zipfile.ZipFile(cleaned, "w") as kept:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ModelError(
                    f"{path}: unpacks to more than {LARGEST} bytes, the maximum for a network"
                )
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename)
                _refuse_entry(name, path)
                data = archive.read(entry)
                if "sample_inputs" in name.parts:
                    data = empty.getvalue()
                elif name.name.endswith("_config.json") and b"use_pickle" in data:
                    _refuse_pickles(data, name, path)
                kept.writestr(zipfile.ZipInfo(entry.filename), data)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise ModelError(f"{path}: not an archive of torch.export ({error})") from error
    return cleaned.getvalue()


def _refuse_entry(name: PurePosixPath, path: Path) -> None:
    if name.is_absolute() or ".." in name.parts or "\\" in str(name):
        raise ModelError(f"{path}: contains {str(name)!r}, a path outside of the archive")
    if name.suffix in {".so", ".dll", ".dylib", ".pkl", ".py"} or "aotinductor" in name.parts:
        raise ModelError(
            f"{path}: contains {str(name)!r}, compiled or pickled code, which is not supported"
        )


def _refuse_pickles(data: bytes, name: PurePosixPath, path: Path) -> None:
    try:
        config = json.loads(data)["config"]
        pickled = [key for key, value in config.items() if value.get("use_pickle")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: {name} is not what torch.export writes ({error!r})") from error
    if pickled:
        raise ModelError(f"{path}: {pickled[0]} is pickled, can contain code and is not read")


def _is_training(node: Any) -> bool:
    """Whether a node runs in training mode: active dropout, or norms with batch statistics."""
    name = getattr(node.target, "_schema", None)
    if node.op != "call_function" or name is None:
        return False
    if name.name in ("aten::dropout", "aten::feature_dropout"):
        return len(node.args) > 2 and node.args[2] is True
    return bool(name.name == "aten::batch_norm" and len(node.args) > 5 and node.args[5] is True)


def _use_functions(network: nn.Module) -> None:
    """Replace rectifiers in the graph with the functions that backward rules intercept."""
    for module in network.modules():
        graph = getattr(module, "graph", None)
        for node in getattr(graph, "nodes", ()):
            schema = getattr(node.target, "_schema", None)
            if node.op != "call_function" or schema is None:
                continue
            if schema.name == "aten::elu" and len(node.args) > 2:
                continue  # a scaled ELU, which the function does not support
            node.target = _FUNCTIONS.get(schema.name, node.target)
