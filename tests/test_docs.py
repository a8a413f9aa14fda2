"""Documentation: links, the index of decisions, and the architecture agree with the files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from neuroxai.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
STATUS = re.compile(r"^\*\*Status:\*\* (accepted|withdrawn|superseded by) ?(?:\[decision (\d+)\])?")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


def test_the_index_of_decisions_has_every_page_with_its_title_and_status() -> None:
    rows = []
    for page in DECISIONS:
        number = int(page.name[:4])
        title, blank, status = page.read_text("utf-8").splitlines()[:3]
        found = STATUS.match(status)
        assert found is not None, f"{page.name}: no status line below the title"
        assert blank == ""
        assert title.startswith(f"# {number}. ")
        shown = " ".join(part for part in found.groups() if part)
        rows.append(f"| {number} | [{title.split('. ', 1)[1]}]({page.name}) | {shown} |")
    index = (ROOT / "docs" / "decisions" / "README.md").read_text("utf-8").splitlines()
    assert [line for line in index if re.match(r"\| \d", line)] == rows


def test_a_decision_that_supersedes_another_is_named_there() -> None:
    for page in DECISIONS:
        found = STATUS.match(page.read_text("utf-8").splitlines()[2])
        assert found is not None
        if found[1] == "superseded by":
            (newer,) = (other for other in DECISIONS if int(other.name[:4]) == int(found[2]))
            link = f"supersedes [decision {int(page.name[:4])}]({page.name})"
            assert link in newer.read_text("utf-8")


def test_the_import_order_is_that_of_the_contracts() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    shown = [block.splitlines() for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    assert shown == [each["layers"] for each in contracts if each["type"] == "layers"]


def test_the_modules_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    package = ROOT / "src" / "neuroxai"
    rows = re.findall(r"^\| `([\w/]+)` \| (.*) \|$", text, re.MULTILINE)
    named = {folder for folder, _ in rows}
    folders = {path.parent for path in package.rglob("*.py")} - {package}
    top = {path.relative_to(package).as_posix() for path in folders if path.parent == package}
    assert {folder.partition("/")[0] for folder in named} == top
    for folder, content in rows:
        assert (package / folder).is_dir(), folder
        for name in re.findall(r"`([a-z_]\w*)`", content):
            place = package / folder / name
            assert place.is_dir() or place.with_suffix(".py").is_file(), f"{folder}/{name}"
    for path in re.findall(r"`((?:core|methods|inspection)/[\w/]+\.py)`", text):
        assert (package / path).is_file(), path


def test_the_reference_has_every_public_name_and_method() -> None:
    stub = ast.parse((ROOT / "src" / "neuroxai" / "__init__.pyi").read_text("utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    names = {each.name for node in imports if node.module for each in node.names}
    text = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = {name.rpartition(".")[2] for name in re.findall(r"auto\w+:: ([\w.]+)", text)}
    mentioned = set(re.findall(r"`nx\.(\w+)`", text))
    assert names - shown - mentioned == {"__version__"}
    assert {method.__name__ for method in METHODS.values()} <= shown


def test_the_example_of_an_own_method_runs_and_equals_its_closed_form() -> None:
    page = (ROOT / "docs" / "guide" / "own-method.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks[0].splitlines()) <= 45
    program = "\n".join([
        *blocks,
        "x = torch.rand(1, 2, 4, 3)",
        "linear = torch.nn.Conv2d(2, 3, 1)",
        "maps = nx.explain(linear, x, DimmedGradient(), 1, within='image')",
        "values = maps['dimmed_gradient'].values",
        "by_hand = linear.weight[1].detach() * x / 12",
        "torch.testing.assert_close(values, by_hand)",
    ])  # fmt: skip
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going"]
    built = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", ROOT / "docs", tmp_path / "html"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert "completeness" in (tmp_path / "html" / "guide" / "glossary.html").read_text("utf-8")
