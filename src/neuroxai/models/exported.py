"""Programs of ``torch.export``: a network's graph and weights in one archive, without its code."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from neuroxai.core.errors import ModelError
from neuroxai.models.card import read_description
from neuroxai.models.model import Model
from neuroxai.models.weights import LARGEST, read_whole

_AS_WRITTEN: dict[str, Callable[..., Any]] = {
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
"""Rectifiers in a program's graph, and the functions that the guided rule watches."""


def read_exported(path: Path, card: str | Path | None, *, trust: bool = False) -> Model:
    """Load a program that ``torch.export.save`` wrote.

    What it allows depends on how it was exported: sizes other than the exported ones need dynamic
    axes, and layers keep their names but not their classes, so methods that look into a layer want
    it by name.

    An archive may hold pickles, compiled libraries, and expressions that are evaluated when it is
    read. The first two are refused, and the example inputs, a pickle in every archive, are never
    read; for the third it must be trusted.

    Parameters
    ----------
    path
        The ``.pt2`` file.
    card
        A JSON file that says what the network expects and returns, as for a module of your own; by
        default ``card.json`` beside it.
    trust
        That the file comes from somebody you trust.

    Raises
    ------
    ModelError
        If it is not trusted, is no such archive, or holds what is refused.
    """
    found, output = read_description(
        Path(card) if card is not None else path.with_name("card.json"), architecture=path.name
    )
    if not trust:
        raise ModelError(
            f"{path}: an exported program holds expressions that run when it is read; if you trust "
            "where it comes from, load it with --trust (trust=True)"
        )
    payload = read_whole(path)
    try:
        with warnings.catch_warnings():
            # Torch warns of its own internals; there is nothing a user could do about it.
            warnings.simplefilter("ignore", FutureWarning)
            program = torch.export.load(io.BytesIO(_without_pickles(payload, path)))
            network = torch.export.unflatten(program)
    except ModelError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{path}: cannot be read as an exported program ({first[:300]})"
        ) from error
    if any(_in_training(node) for node in program.graph.nodes):
        raise ModelError(f"{path}: was exported in training mode; export network.eval() instead")
    _name_rectifiers(network)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: {name} holds values that are not finite")
    network.eval().requires_grad_(requires_grad=False)
    pinned = hashlib.sha256(payload).hexdigest()
    return Model(network, found, path.parent, pinned, kind="an exported program", output_key=output)


def _without_pickles(payload: bytes, path: Path) -> bytes:
    """Return the archive with its example inputs taken out, once nothing else in it is refused."""
    made = io.BytesIO()
    empty = io.BytesIO()
    torch.save(((), {}), empty)
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive, zipfile.ZipFile(made, "w") as kept:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ModelError(f"{path}: unpacks to more than a network should have")
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename)
                _refuse_entry(name, path)
                held = archive.read(entry)
                if "sample_inputs" in name.parts:
                    held = empty.getvalue()
                elif name.name.endswith("_config.json") and b"use_pickle" in held:
                    _refuse_pickles(held, name, path)
                kept.writestr(zipfile.ZipInfo(entry.filename), held)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise ModelError(f"{path}: not an archive of torch.export ({error})") from error
    return made.getvalue()


def _refuse_entry(name: PurePosixPath, path: Path) -> None:
    if name.is_absolute() or ".." in name.parts or "\\" in str(name):
        raise ModelError(f"{path}: holds {str(name)!r}, a name that leaves the archive")
    if name.suffix in {".so", ".dll", ".dylib", ".pkl", ".py"} or "aotinductor" in name.parts:
        raise ModelError(
            f"{path}: holds {str(name)!r}, compiled or pickled code, which is not read"
        )


def _refuse_pickles(held: bytes, name: PurePosixPath, path: Path) -> None:
    try:
        config = json.loads(held)["config"]
        pickled = [key for key, value in config.items() if value.get("use_pickle")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: {name} is not what torch.export writes ({error!r})") from error
    if pickled:
        raise ModelError(f"{path}: {pickled[0]} is pickled, which can carry code and is not read")


def _in_training(node: Any) -> bool:
    """Whether a node of the graph behaves as in training: dropout, or norms over the batch."""
    name = getattr(node.target, "_schema", None)
    if node.op != "call_function" or name is None:
        return False
    if name.name in ("aten::dropout", "aten::feature_dropout"):
        return len(node.args) > 2 and node.args[2] is True
    return bool(name.name == "aten::batch_norm" and len(node.args) > 5 and node.args[5] is True)


def _name_rectifiers(network: nn.Module) -> None:
    """Put the functions that the guided rule watches in the place of the graph's own operators."""
    for module in network.modules():
        graph = getattr(module, "graph", None)
        for node in getattr(graph, "nodes", ()):
            schema = getattr(node.target, "_schema", None)
            if node.op != "call_function" or schema is None:
                continue
            if schema.name == "aten::elu" and len(node.args) > 2:
                continue  # a scaled one, which the function does not have
            node.target = _AS_WRITTEN.get(schema.name, node.target)
