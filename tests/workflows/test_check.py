"""The check of a network and of the methods that apply to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bundles
import neuroxai as nx
from command_line import here
from neuroxai.core.errors import ModelError
from neuroxai.methods import METHODS
from neuroxai.models import load_model
from neuroxai.workflows.check import check_model


def test_every_method_applies_to_the_shipped_network() -> None:
    found = check_model(load_model("deepseg-phantom"))
    assert dict(found.refused) == dict.fromkeys(
        name for name, each in METHODS.items() if not each.on_request
    )
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


class Moved(nn.Sequential):
    """A cropped output at a place that kernels do not show."""

    def forward(self, x: Tensor) -> Tensor:
        for part in self:
            x = part(x)
        return x.roll(1, 2)


def test_a_cropped_output_at_an_unknown_place_is_refused_at_the_first_pass(
    tmp_path: Path, segmenter: nx.Model, study: nx.Case
) -> None:
    bundle = load_model(bundles.write_bundle(tmp_path / "b"))
    valid = Moved(nn.Conv3d(4, 5, 3), nn.ReLU(), nn.Conv3d(5, 3, (3, 3, 1))).eval()
    with pytest.raises(ModelError, match="pad its convolutions"):
        check_model(replace(bundle, network=valid))
    channels = len(segmenter.card.classes)
    valid = Moved(nn.Conv3d(4, 5, 3), nn.ReLU(), nn.Conv3d(5, channels, 1)).eval()
    passes: list[int] = []
    valid.register_forward_hook(lambda *_: passes.append(1))
    session = nx.open(replace(segmenter, network=valid), study)
    with pytest.raises(ModelError, match="expected that of its input") as error:
        session.explain(["vanilla_gradient", "integrated_gradients"])
    assert "\n" not in str(error.value)
    assert len(passes) <= 4  # integrated gradients would take 25 more
    with pytest.raises(ModelError, match="expected that of its input"):
        _ = session.prediction


def test_a_cropped_output_is_placed(tmp_path: Path, segmenter: nx.Model, study: nx.Case) -> None:
    """The same network with padding predicts the same labels inside; nothing is outside."""
    bundle = load_model(bundles.write_bundle(tmp_path / "b"))
    valid = nn.Sequential(nn.Conv3d(4, 5, 3), nn.ReLU(), nn.Conv3d(5, 3, (3, 3, 1))).eval()
    assert check_model(replace(bundle, network=valid)).refused["grad_cam"] is None
    channels = len(segmenter.card.classes)
    torch.manual_seed(0)
    # The kernels cut off more than the padding of the scan; air is class 1 by the bias.
    cropping = nn.Conv3d(4, channels, (9, 1, 5)).eval()
    padded = nn.Conv3d(4, channels, (9, 1, 5), padding=(4, 0, 2)).eval()
    assert cropping.bias is not None
    with torch.no_grad():
        cropping.bias.copy_(torch.eye(channels)[1] / 100)
    padded.load_state_dict(cropping.state_dict())
    small, whole = (
        nx.open(replace(segmenter, network=nn.Sequential(network)), study)
        for network in (cropping, padded)
    )
    expected, found = whole.prediction.labels, small.prediction.labels
    assert expected is not None
    assert found is not None
    inside = np.zeros(small.prepared.placement.grid, np.uint8)
    inside[4:-4, :, 2:-2] = 1
    covered = small.prepared.placement.to_patient(inside)
    assert (expected * covered).any()
    assert not np.array_equal(expected, expected * covered)
    np.testing.assert_array_equal(found, expected * covered)
    assert any("covers voxels 4 to" in warning for warning in small.prediction.warnings)
    # A mask on the scan: the same gradient as of the padded network within it.
    mask = (expected == 1) & (covered > 0)
    one, other = (
        session.explain("vanilla_gradient", segmenter.card.classes[1], within=mask)
        for session in (small, whole)
    )
    torch.testing.assert_close(
        one["vanilla_gradient"].values, other["vanilla_gradient"].values, rtol=1e-4, atol=1e-9
    )
    np.testing.assert_array_equal(one["vanilla_gradient"].within_mask(), mask)
    flow = small.inspect([segmenter.card.classes[1]])
    layer = flow.flow.layers[0]
    shown = flow.map_of(flow.flow.targets[0], layer)
    assert shown.shape == small.prepared.placement.grid
    assert not shown[:4].any()
    assert shown[4:-4, :, 2:-2].any()
    offset = np.linalg.solve(small.prepared.placement.network_affine, flow.layer_affine(layer))
    np.testing.assert_allclose(offset[:3, 3], (4, 0, 2), atol=1e-9)


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
