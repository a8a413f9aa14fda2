"""The rules of the house, checked by machine: layers, types, style, and what the papers say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuroxai.methods import METHODS
from neuroxai.version import __version__

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",)],
    ids=lambda command: "-".join(command),
)
def test_style_types_and_layers(command: tuple[str, ...]) -> None:
    run = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def test_every_module_says_its_idea_and_stays_readable() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.lstrip().startswith(('"""', 'r"""')), f"{path.name} has no docstring"
        assert text.count("\n") <= 420, f"{path} is {text.count(chr(10))} lines long"


def test_ci_calls_the_readmes_test_command_and_nothing_else() -> None:
    lines = [
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert lines == ["make test"]
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_papers_agree_with_the_code() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert f"`{name}`" in readme
        assert method.citation in readme
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {__version__}" in citation.replace('"', "")
    assert "10.1007/s11548-022-02619-x" in citation


def test_the_readmes_python_names_exist() -> None:
    import neuroxai as nx

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\bnx\.(\w+)", readme))
    assert names
    for name in names | set(dir(nx)):
        assert getattr(nx, name) is not None


def test_pinned_torch_is_one_version() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    assert "torch==2.13.0\n" in pins
    assert '"torch==2.13.0"' in project
