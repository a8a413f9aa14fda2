"""Drafts of cards: what a network's answers tell, and what is left to fill in."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from command_line import here, refusal
from neuroxai.core.errors import ModelError
from neuroxai.models import load_model
from neuroxai.models.measured import measure
from neuroxai.workflows.card_draft import draft_card

CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 4, 1))
    def forward(self, x):
        return self.body(x)
"""
FILLED: dict[str, Any] = {
    "modalities": ["T1ce", "FLAIR"],
    "classes": ["background", "NCR", "ED", "ET"],
    "activation": "softmax",
}


class Halved(nn.Module):
    """Segmenter that joins a level at half the size: odd sizes fail."""

    def __init__(self, conv: Callable[..., nn.Module], levels: int = 1) -> None:
        super().__init__()
        self.enter = conv(3, 5, 3, padding=1)
        self.downs = nn.ModuleList(conv(5, 5, 3, stride=2, padding=1) for _ in range(levels))
        self.exit = conv(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = low = self.enter(x)
        for down in self.downs:
            low = down(low)
        up = functional.interpolate(low, scale_factor=2.0 ** len(self.downs))
        out: Tensor = self.exit(torch.cat([skip, up], 1))
        return out


class Patches(nn.Module):
    """Classifier of tokens with learned positions, for one size; channels are a linear layer's."""

    def __init__(self, edge: int, channels: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(channels * 16 * 16, 6)
        self.positions = nn.Parameter(torch.zeros((edge // 16) ** 2, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(3)
        out: Tensor = self.head((self.embed(rows.flatten(1, 2)) + self.positions).mean(1))
        return out


class Outputs(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body = nn.Conv2d(4, 3, 3, padding=1)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.body(x))


@pytest.mark.parametrize(
    ("network", "channels", "output", "divisor", "fixed"),
    [
        (nn.Conv3d(4, 2, 3, padding=1), 4, (2, 32, 32, 32), 1, False),
        (Halved(nn.Conv2d), 3, (2, 32, 32), 2, False),
        (Halved(nn.Conv3d, 3), 3, (2, 32, 32, 32), 8, False),
        (Patches(64), 3, (3,), 64, True),
        (Patches(96, 1), 1, (3,), 96, True),
        (nn.Sequential(nn.Conv2d(7, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), 7, (2, 28, 28), 1,
         False),
        (nn.Sequential(nn.Conv3d(2, 16, 3, groups=2), nn.AdaptiveAvgPool3d(1), nn.Flatten()), 2,
         (16,), 1, False),
    ],
)  # fmt: skip
def test_inputs_and_outputs_are_measured(
    network: nn.Module, channels: int, output: tuple[int, ...], divisor: int, fixed: bool
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = measure(network.train())
    assert found.input_shape[1] == channels
    assert found.output_shape == (1, *output)
    assert (found.divisor, found.fixed) == (divisor, fixed)
    assert found.task == ("classification" if len(output) == 1 else "segmentation")
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("answer", "key", "activation"),
    [
        (lambda z: z, None, None),
        (lambda z: z.softmax(1), None, "softmax"),
        (lambda z: z.log_softmax(1)[:, :2], None, "log_softmax"),
        (lambda z: z.sigmoid().permute(0, 1, 3, 2), None, "sigmoid"),
        (lambda z: torch.sigmoid(z) - 0.0 * z, None, None),
        (lambda z: z.clamp(0, 1), None, None),
        (lambda z: [z], None, None),
        (lambda z: (z.mean(), z), 1, None),
        (lambda z: {"deep": z[..., ::2, ::2], "seg": z}, "seg", None),
    ],
)
def test_the_output_and_its_activation_are_found(
    answer: Callable[[Tensor], Any], key: int | str | None, activation: str | None
) -> None:
    found = measure(Outputs(answer))
    assert found.output_key == key
    assert found.activation == activation
    assert found.output_shape is not None


def test_ambiguous_networks_are_refused_or_left_open() -> None:
    """Nothing is guessed: several heads, several numbers of channels, labels as outputs."""
    found = measure(Outputs(lambda z: (z, -z)))
    assert found.output_key is None
    assert found.output_shape == (1, 3, 32, 32)
    assert measure(Outputs(lambda z: (z, z[:, :1]))).output_shape is None

    class Any3(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3), keepdim=True).expand_as(x)

    with pytest.raises(ModelError, match=r"runs on images of 1, 2, 3, 4 and 5 channels.*--shape"):
        measure(Any3())
    assert measure(Any3(), (2, None, None)).input_shape[:2] == (1, 2)
    with pytest.raises(ModelError, match="expected floating-point scores"):
        measure(Outputs(lambda z: z.argmax(1)))
    with pytest.raises(ModelError, match="does not run on an image of 5×32×32"):
        measure(Outputs(lambda z: z), (5, 32, 32))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "drafted.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "drafted", raising=False)
    body = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 4, 1))
    save_file({f"body.{k}": v for k, v in body.state_dict().items()}, tmp_path / "w.safetensors")
    return tmp_path


def test_a_draft_is_refused_until_it_is_filled_in(home: Path) -> None:
    done = here("models", "card", "drafted:Net", "--weights", "w.safetensors", "--init")
    assert done.returncode == 0, done.stderr
    assert "3D images of 2 channels, of any size" in done.stdout
    table = json.loads((home / "card.json").read_text())
    assert (table["task"], len(table["modalities"]), len(table["classes"])) == (
        "segmentation",
        2,
        4,
    )
    assert (table["preprocessing"]["divisor"], table["preprocessing"]["size"]) == (1, None)
    missing = ("modalities", "classes", "regions", "activation", "preprocessing.intensity",
               "preprocessing.orientation", "preprocessing.voxel_mm")  # fmt: skip
    listed = done.stdout.partition("Fill in:")[2]
    for key in missing:
        assert f"  {key}: " in listed
    assert "\n" not in str(_error(home))
    for key in missing:
        assert key in str(_error(home))

    table |= FILLED
    del table["regions"]
    (home / "card.json").write_text(json.dumps(table))
    assert re.search(
        r"fill in preprocessing\.intensity, preprocessing\.orientation and preprocessing\.voxel_mm",
        str(_error(home)),
    )
    table["preprocessing"] |= {"intensity": "zscore", "orientation": "RAS", "voxel_mm": None}
    (home / "card.json").write_text(json.dumps(table))
    model = load_model("drafted:Net", weights="w.safetensors")
    assert model.card.regions["TC"] == ("NCR", "ET")
    assert model.card.preprocessing["modalities"] == ["T1ce", "FLAIR"]
    assert here("models", "check", "drafted:Net", "--weights", "w.safetensors").returncode == 0


def _error(home: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_model("drafted:Net", weights=home / "w.safetensors")
    return caught.value


def test_files_are_never_overwritten(home: Path) -> None:
    (home / "card.json").write_text("mine")
    for arguments in (["--weights", "w.safetensors"], ["-o", "card.json"]):
        refusal(here("models", "card", "drafted:Net", "--init", *arguments),
                "card.json", "not overwritten")  # fmt: skip
    assert (home / "card.json").read_text() == "mine"
    assert {path.name for path in home.iterdir()} <= {
        "card.json", "drafted.py", "w.safetensors", "__pycache__",
    }  # fmt: skip


def test_exported_programs_tell_their_input(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 1, 1)).eval()
    program = torch.export.export(network, (torch.rand(1, 2, 8, 6, 4),))
    torch.export.save(program, tmp_path / "n.pt2")
    refusal(here("models", "card", tmp_path / "n.pt2"), "--trust")
    draft = draft_card(tmp_path / "n.pt2", trust=True)
    assert draft.folder == tmp_path
    assert draft.table["preprocessing"]["size"] == [8, 6, 4]
    assert draft.table["activation"] == "sigmoid"  # a single channel has no other
    edges = {n: torch.export.Dim(f"d{n}", min=8, max=128) * 4 for n in (2, 3, 4)}
    program = torch.export.export(
        Halved(nn.Conv3d, 2).eval(), (torch.rand(1, 3, 64, 48, 40),), dynamic_shapes=[edges]
    )
    torch.export.save(program, tmp_path / "m.pt2")
    draft = draft_card(tmp_path / "m.pt2", trust=True)
    assert len(draft.table["modalities"]) == 3
    assert (draft.table["preprocessing"]["size"], draft.table["preprocessing"]["divisor"]) == (
        None, 4,
    )  # fmt: skip


def test_weights_alone_tell_little_and_say_so(home: Path) -> None:
    done = here("models", "card", "w.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert result["file"] is None
    assert "Its convolutions are 3D." in result["told"]
    assert {"task", "modalities", "classes", "preprocessing.divisor"} <= result["missing"].keys()
    assert "package.module:factory --weights" in result["told"][-1]


def test_networks_with_their_own_description_miss_nothing(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    done = here("models", "card", "deepseg-phantom", "--init", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "Fill in" not in done.stdout
    assert json.loads(out.read_text())["modalities"] == ["T1", "T1ce", "T2", "FLAIR"]


def test_shapes_are_checked_first() -> None:
    for wrong in ("4", "4x8", "axb", "4x8x8x8x8", "0x8x8"):
        refusal(
            here("models", "card", "deepseg-phantom", "--shape", wrong), "--shape", "4x96x96x64"
        )
