"""Conversion of pickled weights to safetensors in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from neuroxai.core.errors import ModelError
from neuroxai.files.atomic import atomic_path
from neuroxai.models.formats import refuse_torchscript
from neuroxai.models.weights import LARGEST, read_weights

LIMIT_S = 300
"""Seconds after which a conversion is stopped, far more than a valid file needs."""

_CHILD = Path(__file__).with_name("torch_weights_child.py")


def convert_torch(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    trust: bool = False,
    entry: str | None = None,
) -> Path:
    """Convert a ``torch.save`` file to safetensors.

    The file is read with ``weights_only=True`` in another process, with an empty environment, in a
    temporary folder, with limits on memory, time and output size. This reduces the risk of a
    malicious file but does not remove it (CVE-2025-32434), so ``trust`` is required.

    Parameters
    ----------
    source, out
        The pickled file and the safetensors file to write.
    trust
        Confirms that the file comes from a trusted source.
    entry
        Key of the state dict in a nested file, for example ``state_dict``, followed by a prefix of
        the names if only some of them belong to the network, for example ``state_dict.student``.
        Not needed if the file contains only one network: averages of the weights, losses and
        optimizers are left aside; see :func:`left_aside`.

    Raises
    ------
    ModelError
        If the file is not trusted, cannot be read, or contains no or several state dicts.
    """
    path, target = Path(source), Path(out)
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    refuse_torchscript(path)
    if not trust:
        raise ModelError(
            f"{path}: a pickled file can contain code that runs when it is read; "
            "if you trust its source, add --trust"
        )
    if path.stat().st_size > LARGEST:
        raise ModelError(
            f"{path}: {path.stat().st_size} bytes, expected a network of at most {LARGEST}"
        )
    if target.suffix != ".safetensors":
        raise ModelError(f"{target}: expected a file name that ends in .safetensors")
    with tempfile.TemporaryDirectory(prefix="neuroxai-") as folder:
        converted = Path(folder, "weights.safetensors")
        command = [
            sys.executable,
            "-I",
            str(_CHILD),
            str(path.resolve()),
            str(converted),
            entry or "",
        ]
        try:
            done = subprocess.run(  # noqa: S603
                command, cwd=folder, env={"TMPDIR": folder, "HOME": folder}, timeout=LIMIT_S,
                capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"{path}: conversion stopped after {LIMIT_S} s; check the file"
            ) from error
        if done.returncode or not converted.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ModelError(f"{path}: cannot be converted ({lines[-1]})")
        read_weights(converted)
        with atomic_path(target) as temporary:
            temporary.write_bytes(converted.read_bytes())
    return target


def left_aside(converted: Path) -> str:
    """Return the entries of the pickled file that a converted file does not contain.

    Empty if there are none, or the file was not written by :func:`convert_torch`.
    """
    from safetensors import safe_open

    with safe_open(converted, framework="pt") as file:
        return str((file.metadata() or {}).get("left_aside", ""))
