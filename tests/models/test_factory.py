"""Networks of a user's own: factory, weights and card."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from neuroxai.core.errors import ModelError, TargetError
from neuroxai.models import load_model
from neuroxai.models.weights import load_state
from neuroxai.workflows.explain import explain
from neuroxai.workflows.predict import predict
from neuroxai.workflows.preparation import prepare
from session_cache import phantom

CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 4, 1))
    def forward(self, x):
        return self.body(x)

def build():
    return Net()

class Several(Net):
    def forward(self, x):
        z = self.body(x)
        return {"aside": z.mean(), "seg": z}

class Pair(Net):
    def forward(self, x):
        z = self.body(x)
        return -z, z

def wrong():
    return 3

def broken():
    raise KeyError("no such thing")
"""
CARD: dict[str, Any] = {
    "task": "segmentation",
    "modalities": ["T1ce", "FLAIR"],
    "classes": ["background", "NCR", "ED", "ET"],
    "activation": "softmax",
    "preprocessing": {"modalities": ["T1ce", "FLAIR"], "intensity": "zscore", "divisor": 4,
                      "size": None},
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_network.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_network", raising=False)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 4, 1))
    save_file({f"body.{k}": v for k, v in body.state_dict().items()}, tmp_path / "w.safetensors")
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    return tmp_path


@pytest.mark.parametrize("name", ["build", "Net"])
def test_factories_and_classes_explain_a_case(home: Path, name: str) -> None:
    model = load_model(f"my_network:{name}", weights=home / "w.safetensors")
    assert model.card.modalities == ("T1ce", "FLAIR")
    assert model.card.name == name
    case = phantom(7).case
    maps = explain(model, case, "vanilla_gradient", "ET")
    volume = maps["vanilla_gradient"].volume()
    assert volume.shape == (2, *case.shape)
    assert np.abs(volume).max() > 0
    assert str(home) not in sys.path


def test_tumor_regions_follow_from_class_names(home: Path) -> None:
    """As for a bundle, so that WT has the same meaning in every format."""
    model = load_model("my_network:build", weights=home / "w.safetensors")
    assert model.card.regions == {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}
    other = home / "other.json"
    for classes, regions in (
        (["background", "lesion", "a", "b"], {}),
        (["background", "NCR", "ET", "b"], {"TC": ("NCR", "ET"), "ET": ("ET",)}),
    ):
        other.write_text(json.dumps({**CARD, "classes": classes}))
        model = load_model("my_network:build", weights=home / "w.safetensors", card=other)
        assert model.card.regions == regions
    other.write_text(json.dumps({**CARD, "regions": {"all": ["ED", "ET"]}}))
    model = load_model("my_network:build", weights=home / "w.safetensors", card=other)
    assert model.card.regions == {"all": ("ED", "ET")}
    other.write_text(json.dumps({**CARD, "classes": ["background", "a", "b", "c"]}))
    model = load_model("my_network:build", weights=home / "w.safetensors", card=other)
    with pytest.raises(TargetError, match="one of background, a, b, c"):
        explain(model, phantom(7).case, "vanilla_gradient")


def test_shared_tensors_are_stored_once(home: Path) -> None:
    """MONAI's DynUNet has shared tensors; ``save_model`` stores each under one name."""
    from monai.networks.nets import DynUNet
    from safetensors.torch import load_file, save_model

    def build() -> nn.Module:
        network: nn.Module = DynUNet(
            2, 1, 2, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2],
            filters=[4, 6, 8], deep_supervision=True, deep_supr_num=1,
        )  # fmt: skip
        return network

    network, other = build(), build()
    save_model(network, str(home / "d.safetensors"))
    state = load_file(home / "d.safetensors")
    assert len(state) < len(network.state_dict())
    load_state(other, state, "d.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    state.pop("output_block.conv.conv.weight")
    with pytest.raises(ModelError, match=r"missing tensor 'output_block\.conv\.conv\.weight'"):
        load_state(build(), state, "d.safetensors")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("my_network:wrong", "returned a int, expected an nn.Module"),
        ("my_network:broken", "KeyError: 'no such thing'"),
        ("my_network:nothing", "cannot be built"),
        ("no_such_module:build", "cannot be built"),
    ],
)
def test_factories_that_fail(home: Path, spec: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_model(spec, weights=home / "w.safetensors")
    assert str(caught.value).startswith(spec)


def test_missing_files_and_keys_are_named(home: Path) -> None:
    with pytest.raises(ModelError, match="add --weights"):
        load_model("my_network:build")
    (home / "card.json").unlink()
    with pytest.raises(ModelError, match=r"card\.json: no such file"):
        load_model("my_network:build", weights=home / "w.safetensors")
    other = home / "other.json"
    other.write_text(json.dumps({k: v for k, v in CARD.items() if k != "activation"}))
    with pytest.raises(ModelError, match="missing required key 'activation'; add it, for example"):
        load_model("my_network:build", weights=home / "w.safetensors", card=other)
    other.write_text(json.dumps({**CARD, "colour": 1}))
    with pytest.raises(ModelError, match="unknown key 'colour'"):
        load_model("my_network:build", weights=home / "w.safetensors", card=other)


def test_only_factories_accept_weights(home: Path) -> None:
    with pytest.raises(ModelError, match="has its own weights"):
        load_model("deepseg-phantom", weights=home / "w.safetensors")


def test_half_precision_weights_become_float32(home: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(home / "w.safetensors")
    save_file({k: v.bfloat16() for k, v in state.items()}, home / "half.safetensors")
    model = load_model("my_network:build", weights=home / "half.safetensors")
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, state[name].bfloat16().float())


@pytest.mark.parametrize(("name", "output"), [("Several", "seg"), ("Pair", 1)])
def test_the_card_selects_one_of_several_outputs(home: Path, name: str, output: int | str) -> None:
    case = phantom(7).case
    plain = load_model("my_network:Net", weights=home / "w.safetensors")
    expected = explain(plain, case, "vanilla_gradient", "ET")["vanilla_gradient"].volume()
    unnamed = load_model(f"my_network:{name}", weights=home / "w.safetensors")
    if name == "Pair":
        with pytest.raises(TargetError, match=r"select an output by .*--output-key"):
            explain(unnamed, case, "vanilla_gradient", "ET")
    else:
        # Only one of the outputs has a channel per class.
        found = explain(unnamed, case, "vanilla_gradient", "ET")["vanilla_gradient"].volume()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    chosen = load_model(f"my_network:{name}", weights=home / "w.safetensors", output=str(output))
    found = explain(chosen, case, "vanilla_gradient", "ET")["vanilla_gradient"].volume()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    (home / "card.json").write_text(json.dumps({**CARD, "output": output}))
    model = load_model(f"my_network:{name}", weights=home / "w.safetensors")
    found = explain(model, case, "vanilla_gradient", "ET")["vanilla_gradient"].volume()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    (home / "card.json").write_text(json.dumps({**CARD, "output": True}))
    with pytest.raises(ModelError, match="output is True, expected an index or a name"):
        load_model(f"my_network:{name}", weights=home / "w.safetensors")


def test_flips_average_the_probabilities_of_all_mirror_images(home: Path) -> None:
    """Against the mean over the eight mirror images, written by hand."""
    model = load_model("my_network:build", weights=home / "w.safetensors")
    case = phantom(7).case
    x = prepare(model, case).x
    mean = torch.zeros(())
    with torch.no_grad():
        for bits in range(8):
            axes = [axis for axis in (2, 3, 4) if bits >> (axis - 2) & 1]
            mean = mean + model.network(x.flip(axes)).softmax(1).flip(axes) / 8
    found, plain = (predict(model, case, flips=flips).labels for flips in (True, False))
    assert found is not None
    assert plain is not None
    placement = prepare(model, case).placement
    expected = placement.to_patient(mean[0].argmax(0).numpy())
    sure = placement.to_patient((mean[0].topk(2, 0).values.diff(dim=0).abs()[0] > 1e-4).numpy())
    np.testing.assert_array_equal(found[sure], expected[sure])
    assert (found != plain).any()
