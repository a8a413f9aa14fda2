"""Pickled weights turned to safetensors, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from neuroxai.core.errors import ModelError
from neuroxai.files.atomic import replaced_whole
from neuroxai.models.weights import LARGEST, read_weights

LIMIT_S = 300
"""Seconds after which a conversion is stopped."""

_CHILD = Path(__file__).with_name("torch_weights_child.py")


def convert_torch(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    trust: bool = False,
    entry: str | None = None,
) -> Path:
    """Read the tensors of a ``torch.save`` file and write them as safetensors.

    The file is read with ``weights_only=True`` by another process, with an empty environment, in a
    folder of its own, with limits on memory, time, and the size of what it writes. That lowers the
    risk of a file that is made to do harm; it does not remove it (CVE-2025-32434), so it must be
    asked for.

    Parameters
    ----------
    source, out
        The pickled file and the safetensors file.
    trust
        That the file comes from somebody you trust.
    entry
        Where the tensors are in a nested file, as ``state_dict``; found by itself if there is one
        table of tensors only.

    Raises
    ------
    ModelError
        If it is not trusted, cannot be read, or holds more or less than one table of tensors.
    """
    path, target = Path(source), Path(out)
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if not trust:
        raise ModelError(
            f"{path}: a pickled file can carry code that runs when it is read; "
            "if you trust where it comes from, add --trust"
        )
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path}: {path.stat().st_size} bytes, more than a network should have")
    if target.suffix != ".safetensors":
        raise ModelError(f"{target}: expected a name that ends in .safetensors")
    with tempfile.TemporaryDirectory(prefix="neuroxai-") as folder:
        made = Path(folder, "weights.safetensors")
        command = [sys.executable, "-I", str(_CHILD), str(path.resolve()), str(made), entry or ""]
        try:
            done = subprocess.run(  # noqa: S603
                command, cwd=folder, env={"TMPDIR": folder, "HOME": folder}, timeout=LIMIT_S,
                capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{path}: not read after {LIMIT_S} s; given up") from error
        if done.returncode or not made.is_file():
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise ModelError(f"{path}: cannot be converted ({lines[-1]})")
        read_weights(made)
        with replaced_whole(target) as temporary:
            temporary.write_bytes(made.read_bytes())
    return target
