"""Seeds, thread counts and fixtures shared by all tests."""

from __future__ import annotations

import os
import random
import shutil
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from neuroxai.core.engine.allocator import tune_allocator

if TYPE_CHECKING:
    import neuroxai as nx

sys.path.insert(0, str(Path(__file__).parent))
from session_cache import open_session, shared_folder

# Parallel workers, and the commands that they start, share the cores: more threads than cores only
# wait for one another. torch reads the variable on import, which comes later.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    threads = max(1, (os.cpu_count() or 1) // _WORKERS)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
tune_allocator()  # otherwise page faults take half of the time of small volumes


# Random numbers in a test depend on its name alone, not on the tests that ran before it in its
# process. Another seed draws all of them anew and so exposes a test that passes by luck.
_SEED = int(os.environ.get("NEUROXAI_TEST_SEED", "0"))
settings.register_profile("same", derandomize=True)
settings.register_profile("anew", derandomize=False)
settings.load_profile("anew" if _SEED else "same")


_session = pytest.StashKey[Path | None]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_session] = open_session()


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_session, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed before the fixtures of a module, which its first test requests."""
    seed = zlib.crc32(item.nodeid.encode(), _SEED)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - other libraries draw from it
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with files that hold slow tests, so that no worker is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by the tests of one module."""
    return tmp_path_factory.mktemp("room")


@pytest.fixture(scope="session")
def study() -> nx.Case:
    """A small asymmetric study, read from disk."""
    import cases
    import neuroxai as nx

    return nx.read_case(shared_folder("study", cases.write_study) / cases.STUDY)


@pytest.fixture(scope="module")
def segmenter() -> nx.Model:
    """An untrained DeepSeg."""
    import cases
    import neuroxai as nx

    return nx.load_model(str(shared_folder("segmenter", cases.segmenter) / "segmenter"))


@pytest.fixture(scope="module")
def classifier() -> nx.Model:
    """An untrained ResNet-50."""
    import cases
    import neuroxai as nx

    return nx.load_model(str(shared_folder("classifier", cases.classifier) / "classifier"))
