"""Checkpoints: saving, loading and rejected files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuroxai.core.errors import ModelError, OutputError
from neuroxai.models import Card, DeepSeg, load_model, save_checkpoint, shipped_models

ARGUMENTS = {"in_channels": 2, "out_channels": 3, "filters": 2, "depth": 2}
CARD = Card(
    name="small",
    architecture="deepseg",
    arguments=ARGUMENTS,
    task="segmentation",
    modalities=("FLAIR", "T1ce"),
    classes=("background", "NCR", "ET"),
    regions={"TC": ("NCR", "ET")},
    activation="softmax",
)


def _network() -> DeepSeg:
    torch.manual_seed(1)
    network = DeepSeg(2, 3, filters=2, depth=2)
    network(torch.randn(3, 2, 8, 4, 12))
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "run" / "checkpoint", _network(), CARD)


def test_float32_round_trip_is_exact(folder: Path) -> None:
    model = load_model(folder)
    for name, value in _network().state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value), name
    assert not model.network.training
    assert not any(p.requires_grad for p in model.network.parameters())
    payload = (folder / "model.safetensors").read_bytes()
    assert model.weights_sha256 == hashlib.sha256(payload).hexdigest()
    assert model.card == CARD.replace(weights_sha256=model.weights_sha256)
    assert model.folder == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == ["checkpoint"]
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.safetensors"]


def test_saving_and_loading_draw_no_random_numbers(folder: Path) -> None:
    network = _network()
    before = torch.random.get_rng_state()
    save_checkpoint(folder, network, CARD)
    load_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_float16_applies_to_kernels_only(tmp_path: Path) -> None:
    network = _network()
    network.state_dict()["encoder.0.norm1.running_var"].fill_(1e-9)
    save_checkpoint(tmp_path / "half", network, CARD, dtype="float16")
    model = load_model(tmp_path / "half")
    on_disk = load_file(tmp_path / "half" / "model.safetensors")
    for name, value in network.state_dict().items():
        wanted = value.half().float() if value.ndim > 1 else value
        assert torch.equal(model.network.state_dict()[name], wanted), name
        if value.ndim > 1:
            assert on_disk[name].dtype == torch.float16
    assert model.card.weights_dtype == "float16"


def test_equal_networks_have_equal_files(folder: Path, tmp_path: Path) -> None:
    again = save_checkpoint(tmp_path / "again", _network(), CARD)
    for name in ("card.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_only_a_checkpoint_is_overwritten(folder: Path, tmp_path: Path) -> None:
    save_checkpoint(folder, _network(), CARD.replace(name="newer"))
    assert load_model(folder).card.name == "newer"
    (folder / "diary.txt").write_text("dear")
    with pytest.raises(OutputError, match="is not a checkpoint"):
        save_checkpoint(folder, _network(), CARD)
    assert (folder / "diary.txt").read_text() == "dear"


def test_a_failed_save_keeps_the_existing_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real, calls = Path.rename, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(folder, _network(), CARD.replace(name="newer"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_networks_that_cannot_be_saved(tmp_path: Path) -> None:
    network = _network()
    with pytest.raises(ModelError, match="float32 or float16"):
        save_checkpoint(tmp_path / "a", network, CARD, dtype="bfloat16")
    with pytest.raises(ModelError, match="has shape"):
        save_checkpoint(
            tmp_path / "a",
            network,
            CARD.replace(arguments={**ARGUMENTS, "filters": 3}),
        )
    nn.init.constant_(network.output.weight, 1e6)
    with pytest.raises(ModelError, match=r"output\.weight overflows float16"):
        save_checkpoint(tmp_path / "a", network, CARD, dtype="float16")
    nn.init.constant_(network.output.weight, float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        save_checkpoint(tmp_path / "a", network, CARD)
    assert not list(tmp_path.iterdir())


def test_a_changed_byte_is_detected(folder: Path) -> None:
    path = folder / "model.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(
        ModelError, match=r"model\.safetensors: sha256 is .*, expected .* as in card\.json"
    ):
        load_model(folder)


def _drop(state: dict[str, Tensor]) -> None:
    del state["output.bias"]


def _add(state: dict[str, Tensor]) -> None:
    state["output.bia"] = torch.zeros(3)


def _reshape(state: dict[str, Tensor]) -> None:
    state["output.bias"] = torch.zeros(4)


def _poison(state: dict[str, Tensor]) -> None:
    state["output.bias"] = torch.tensor([0, torch.inf, 0])


def _retype(state: dict[str, Tensor]) -> None:
    state["output.bias"] = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (_drop, "missing tensor 'output.bias'"),
        (_add, "unknown tensor 'output.bia'; did you mean 'output.bias'"),
        (_reshape, r"shape \(4,\), expected \(3,\)"),
        (_poison, "not finite"),
        (_retype, "int64, expected torch.float32"),
    ],
)
def test_weights_must_match_the_network(
    folder: Path, spoil: Callable[[dict[str, Tensor]], None], word: str
) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    spoil(state)
    save_file(state, path)
    _pin(folder)
    with pytest.raises(ModelError, match=word) as caught:
        load_model(folder)
    assert "model.safetensors" in str(caught.value)


def test_files_that_are_not_safetensors(folder: Path) -> None:
    for payload in (b"", b"\x80\x04.", b"\xff" * 100):
        (folder / "model.safetensors").write_bytes(payload)
        _pin(folder)
        with pytest.raises(ModelError, match="not a safetensors file"):
            load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no such file"):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("architecture", "deepsek", "did you mean 'deepseg'"),
        ("arguments", {"fliters": 2}, "cannot be built"),
        ("arguments", {"filters": "two"}, "cannot be built"),
    ],
)
def test_cards_of_unknown_networks(folder: Path, key: str, value: object, word: str) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=word):
        load_model(folder)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".PKL", ".ckpt", ".h5", ".bin"])
def test_files_that_can_contain_code_are_not_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelError, match="can contain code and are not read"):
        load_model(path)


def test_paths_that_do_not_exist(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a shipped network"):
        load_model("deepseg-fantom")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        load_model(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"card\.json: no such file"):
        load_model(tmp_path / "empty")
    assert load_model(folder / "card.json").folder == folder


def test_shipped_networks_load_and_are_small() -> None:
    for name in shipped_models():
        model = load_model(name)
        assert model.card.name == name
        assert (model.folder / "model.safetensors").stat().st_size < 6e6
        assert model.card.use == "research use only, not for clinical use"


def _pin(folder: Path) -> None:
    """Set the card's hash to that of the weight file."""
    table = json.loads((folder / "card.json").read_text())
    table["weights_sha256"] = hashlib.sha256(
        (folder / "model.safetensors").read_bytes()
    ).hexdigest()
    (folder / "card.json").write_text(json.dumps(table))
