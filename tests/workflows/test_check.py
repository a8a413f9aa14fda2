"""The check of a network and of the methods that apply to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import bundles
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
