"""Rules of the repository: short modules, CI commands, documents that agree with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from neuroxai.core.engine.fast_path import VERIFIED_TORCH
from neuroxai.methods import METHODS
from neuroxai.version import __version__

ROOT = Path(__file__).parent.parent


def test_every_module_has_a_docstring_and_stays_short() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.lstrip().startswith(('"""', 'r"""')), f"{path.name} has no docstring"
        assert text.count("\n") <= 420, f"{path} is {text.count(chr(10))} lines long"


def test_tests_mirror_the_packages_folders() -> None:
    tests = ROOT / "tests"
    folders = {
        path.relative_to(tests)
        for path in tests.rglob("*")
        if path.is_dir() and not {"__pycache__", "references"} & set(path.parts)
    }
    assert len(folders) > 20
    missing = [path for path in folders if not (ROOT / "src" / "neuroxai" / path).is_dir()]
    assert not missing, f"tests/ has folders that the package lacks: {missing}"


def test_ci_calls_the_commands_of_the_readme_and_nothing_else() -> None:
    lines = [
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert lines == ["make check", "make test"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(line in readme for line in lines)


def test_soak_tests_stay_out_of_the_default_run() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (default,) = re.findall(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    (soak,) = re.findall(r"^soak:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert "-m soak" in soak
    assert "soak" not in default
    assert '"-m", "not soak"' in (ROOT / "pyproject.toml").read_text()


def test_readme_and_citation_agree_with_the_code() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert f"`{name}`" in readme
        assert method.citation in readme
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {__version__}" in citation.replace('"', "")
    assert "10.1007/s11548-022-02619-x" in citation


def test_public_names_in_the_readme_exist() -> None:
    import neuroxai as nx

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\bnx\.(\w+)", readme))
    assert names
    for name in names | set(dir(nx)):
        assert getattr(nx, name) is not None


def test_torch_is_pinned_in_the_constraints_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (supported,) = (each for each in project["dependencies"] if each.startswith("torch"))
    (pinned,) = re.findall("^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert "==" not in supported
    assert Requirement(supported).specifier.contains(pinned)
    assert pinned in VERIFIED_TORCH
    script = (ROOT / "tests" / "torch_releases.sh").read_text()
    (releases,) = re.findall(r"set -- (.+)$", script, re.MULTILINE)
    assert all(Requirement(supported).specifier.contains(each) for each in releases.split())
