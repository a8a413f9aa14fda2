"""Pages about models: examples run, and the table of preprocessing keys is that of the schema.

``python tests/test_model_pages.py`` writes the tables into ``docs/models.md``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import types
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic_core import PydanticUndefined
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import bundles
import nnunets
from command_line import here
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.data.steps import STEPS
from neuroxai.files.schema import Schema

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "guide" / "models").glob("*.md"))
MODELS = ROOT / "docs" / "models.md"
NETWORK = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 1))
"""


def rows(schema: type[Schema]) -> list[str]:
    """Return a row per key: its name, default and meaning."""
    found = []
    for name, field in schema.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("``", "`")
        meaning = re.sub(r":class:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", meaning).replace("|", "\\|")
        default = (
            "required" if field.default is PydanticUndefined else f"`{json.dumps(field.default)}`"
        )
        if name != "step":
            found.append(f"| `{name}` | {default} | {meaning} |")
    return found


def tables() -> str:
    """Return the tables of all keys of preprocessing, and of its steps."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |", *rows(Preprocessing), ""]
    for step in STEPS:
        name = step.model_fields["step"].annotation.__args__[0]  # type: ignore[union-attr]
        about = (step.__doc__ or "").splitlines()[0].replace("``", "`")
        lines += [f"`{name}`: {about}", "", "| key | default | meaning |", "| --- | --- | --- |"]
        lines += [*rows(step), ""]
    return "\n".join(lines).strip()


def _between(text: str) -> tuple[str, str, str]:
    before, start, rest = text.partition("<!-- keys of preprocessing -->\n\n")
    inside, end, after = rest.partition("\n\n<!-- end of keys -->")
    return before + start, inside, end + after


def test_the_keys_of_preprocessing_are_those_of_the_schema() -> None:
    assert _between(MODELS.read_text("utf-8"))[1] == tables()
    assert all(field.description for field in Preprocessing.model_fields.values())


class Fields(UserDict[str, Tensor]):
    """Stands for the output of a network of transformers."""


class Classifier(nn.Module):
    def __init__(self, channels: int, classes: int, *, fields: bool = False) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(channels, 4, 3), nn.Linear(4, classes)
        self.fields = fields

    def forward(self, x: Tensor) -> Any:
        hidden = self.conv(x).relu().mean((2, 3))
        logits = self.head(hidden)
        return Fields(logits=logits, hidden=hidden) if self.fields else logits


def _stand_ins(patch: pytest.MonkeyPatch) -> None:
    """Put small networks in the place of packages that are not installed."""

    def named(name: str, **content: object) -> None:
        module = types.ModuleType(name)
        vars(module).update(content)
        patch.setitem(sys.modules, name, module)

    named(
        "timm", create_model=lambda _, *, num_classes, in_chans: Classifier(in_chans, num_classes)
    )
    automatic = types.SimpleNamespace(from_pretrained=lambda _: Classifier(3, 2, fields=True))
    named("transformers", AutoModelForImageClassification=automatic)


def _files(folder: Path) -> None:
    """Write the files that the pages name."""
    card = re.search(r"```json\n(.*?)```", PAGES_BY_NAME["my-own"].read_text("utf-8"), re.DOTALL)
    assert card is not None
    (folder / "card.json").write_text(card[1])
    (folder / "my_net.py").write_text(NETWORK)
    network = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 1))
    state = network.state_dict()
    save_file(state, folder / "model.safetensors")
    wrapped = {f"model.{name}": value for name, value in state.items()}
    wrapped |= {"loss.weight": torch.ones(2)}
    torch.save({"epoch": 1, "state_dict": wrapped}, folder / "last.ckpt")
    example, sizes = torch.zeros(1, 2, 8, 12, 16), dict.fromkeys((2, 3, 4), torch.export.Dim.AUTO)
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=(sizes,))
    torch.export.save(program, folder / "model.pt2")
    shutil.copy(ROOT / "tests" / "references" / "deepseg_weights.h5", folder)


PAGES_BY_NAME = {page.stem: page for page in PAGES}


@pytest.mark.parametrize("name", [name for name in PAGES_BY_NAME if name != "index"])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    _stand_ins(monkeypatch)
    _files(tmp_path)
    if name == "monai-bundle":
        bundles.write_bundle(tmp_path / "bundle")
    if name == "nnunet":
        folder = nnunets.write_nnunet(tmp_path, folds=(0,), pickled=True)
        assert folder.name == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    case = nnunets.write_case(tmp_path / "BraTS2021_01")
    text = PAGES_BY_NAME[name].read_text("utf-8")
    scope: dict[str, Any] = {}
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            exec(compile(block, f"{name}.md", "exec"), scope)
            continue
        for line in block.strip().splitlines():
            words = shlex.split(line)
            assert words[0] == "neuroxai"
            words = [str(case) if word == "CASE" else word for word in words]
            run = here(*words[1:])
            assert run.returncode == 0, f"{line}\n{run.stderr[-800:]}"
    if name == "torchscript":
        assert (tmp_path / "model.pt2").is_file()
    if name == "my-own":
        assert load_file("model.safetensors").keys() == scope["network"].state_dict().keys()


if __name__ == "__main__":
    start, _, end = _between(MODELS.read_text("utf-8"))
    MODELS.write_text(start + tables() + end, "utf-8")
