"""Files and phantoms that several tests need, made once per run and shared by all workers."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from filelock import FileLock

if TYPE_CHECKING:
    from neuroxai.data.phantom import Phantom

T = TypeVar("T")

ROOT = "NEUROXAI_TEST_SESSION"
"""Environment variable that names the folder; the workers inherit it from the main process."""


def open_session() -> Path | None:
    """Create the folder in the main process; return None in a worker, which inherits it."""
    if ROOT in os.environ:
        return None
    os.environ[ROOT] = tempfile.mkdtemp(prefix="neuroxai-tests-")
    return Path(os.environ[ROOT])


def shared_folder(name: str, build: Callable[[Path], object]) -> Path:
    """Return the folder ``name``, filled by ``build`` in the first process that requests it.

    Tests must not write into it.
    """
    folder = Path(os.environ[ROOT]) / name
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            with _same_random_state():
                build(unfinished)
            unfinished.rename(folder)
    return folder


def shared_object(key: str, make: Callable[[], T]) -> T:
    """Return what ``make`` returns, from disk once any process has made it for this key."""

    def build(folder: Path) -> None:
        (folder / "object.pickle").write_bytes(pickle.dumps(make(), pickle.HIGHEST_PROTOCOL))

    folder = shared_folder(f"object-{sha256(key.encode()).hexdigest()[:16]}", build)
    return cast(T, pickle.loads((folder / "object.pickle").read_bytes()))


@lru_cache(maxsize=64)
def phantom(seed: int, *, spacing: float = 3.0, **wanted: Any) -> Phantom:
    """Return :func:`make_phantom` of the same arguments; tests must not change its arrays."""
    from neuroxai.data.phantom import make_phantom

    given = {name: value for name, value in wanted.items() if value not in (None, False)}
    given |= {"tumor": False} if wanted.get("tumor") is False else {}
    key = json.dumps(["phantom", seed, spacing, given], sort_keys=True)
    return shared_object(key, lambda: make_phantom(seed, spacing=spacing, **given))


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Restore the global generators, so that a test draws the same whoever builds the folder."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - other libraries draw from it
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch and torch_state is not None:
            torch.set_rng_state(torch_state)
