"""The check of a network and of the methods that apply to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import bundles
import neuroxai as nx
from command_line import here
from neuroxai.core.errors import ModelError
from neuroxai.methods import METHODS
from neuroxai.models import load_model
from neuroxai.workflows.check import check_model


def test_every_method_applies_to_the_shipped_network() -> None:
    found = check_model(load_model("deepseg-phantom"))
    assert dict(found.refused) == dict.fromkeys(METHODS)
    assert found.layers == 26


def test_methods_that_need_a_rectifier_are_refused_with_a_reason(tmp_path: Path) -> None:
    model = load_model(bundles.write_bundle(tmp_path / "b"))
    linear = nn.Conv3d(4, 3, 3, padding=1).eval()
    found = check_model(replace(model, network=linear))
    assert found.refused["vanilla_gradient"] is None
    assert found.refused["guided_backprop"] is not None
    assert "rectifier" in found.refused["guided_backprop"]


def test_a_number_of_channels_other_than_in_the_card_raises_an_error(tmp_path: Path) -> None:
    model = load_model(bundles.write_bundle(tmp_path / "b"))
    with pytest.raises(ModelError, match="returns 5 channels, its card names 3"):
        check_model(replace(model, network=nn.Conv3d(4, 5, 1)))
    with pytest.raises(ModelError, match="does not run on 4 channels"):
        check_model(replace(model, network=nn.Conv3d(7, 3, 1)))


def test_a_segmenter_with_a_cropped_output_is_refused_at_the_first_pass(
    tmp_path: Path, segmenter: nx.Model, study: nx.Case
) -> None:
    bundle = load_model(bundles.write_bundle(tmp_path / "b"))
    valid = nn.Sequential(nn.Conv3d(4, 5, 3), nn.ReLU(), nn.Conv3d(5, 3, (3, 3, 1))).eval()
    with pytest.raises(ModelError, match="pad its convolutions"):
        check_model(replace(bundle, network=valid))
    channels = len(segmenter.card.classes)
    valid = nn.Sequential(nn.Conv3d(4, 5, 3), nn.ReLU(), nn.Conv3d(5, channels, 1)).eval()
    passes: list[int] = []
    valid.register_forward_hook(lambda *_: passes.append(1))
    session = nx.open(replace(segmenter, network=valid), study)
    with pytest.raises(ModelError, match="expected that of its input") as error:
        session.explain(["vanilla_gradient", "integrated_gradients"])
    assert "\n" not in str(error.value)
    assert len(passes) <= 3  # integrated gradients would take 25 more
    with pytest.raises(ModelError, match="expected that of its input"):
        _ = session.prediction


def test_the_command_line(tmp_path: Path) -> None:
    bundles.write_bundle(tmp_path / "brats")
    done = here("models", "check", "brats", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("SegResNet", "T1ce, T1, T2, FLAIR", "TC, WT, ET (sigmoid)", "grad_cam: yes",
                  "diagnostic"):  # fmt: skip
        assert words in done.stdout
    assert "deepseg-phantom" in here("models", "list", cwd=tmp_path).stdout
    wrong = here("models", "check", "nowhere", cwd=tmp_path)
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
