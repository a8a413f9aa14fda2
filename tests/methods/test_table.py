"""The table of methods equals the classes it names, and is read without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import neuroxai.methods
from neuroxai.methods.make import describe_method
from neuroxai.methods.table import METHODS, TABLE


@pytest.mark.parametrize("name", TABLE)
def test_the_listing_equals_the_class(name: str) -> None:
    assert describe_method(METHODS[name]) == TABLE[name]
    assert METHODS[name].name == name


def test_every_module_with_a_method_is_listed() -> None:
    folder = Path(neuroxai.methods.__file__).parent
    defining = {
        path.stem
        for path in folder.glob("*.py")
        if "    name: ClassVar[str] =" in path.read_text(encoding="utf-8")
    }
    assert defining == set(METHODS)


def test_the_names_are_known_without_torch() -> None:
    code = "import sys, neuroxai as nx; print('grad_cam' in nx.METHODS, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"]


def test_an_unknown_name_is_a_key_error() -> None:
    assert "gradcam" not in METHODS
    assert METHODS.get("gradcam") is None
    with pytest.raises(KeyError):
        METHODS["gradcam"]
