"""Names of tensors with a constant prefix, and next to what training stores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuroxai.core.errors import ModelError
from neuroxai.models.weights import load_state


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3), nn.Conv3d(3, 4, 1))


def prefixed(prefix: str, seed: int = 1) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in network(seed).state_dict().items()}


def check(made: nn.Module, seed: int = 1) -> None:
    for (name, got), want in zip(
        made.state_dict().items(), network(seed).state_dict().values(), strict=True
    ):
        assert torch.equal(got, want), name


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "net.",
        "_orig_mod.",
        "model._orig_mod.",
        "student.backbone.",
        "0.",
        "a.0.",
    ],
)
def test_a_constant_prefix_is_removed(prefix: str) -> None:
    made = network()
    assert load_state(made, prefixed(prefix), "w") == []
    check(made)


@pytest.mark.parametrize("prefix", ["", "model.", "0."])
def test_a_network_that_is_wrapped_itself(prefix: str) -> None:
    made = nn.ModuleDict({"net": network()})
    load_state(made, prefixed(prefix), "w")
    check(made["net"])


def test_wrappers_inside_a_name_are_removed() -> None:
    made = network()
    state = {name.replace("1.", "1._checkpoint_wrapped_module."): value
             for name, value in prefixed("model.").items()}  # fmt: skip
    load_state(made, state, "w")
    check(made)


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("model.", {"loss.weight": torch.ones(2)}),
        ("", {"loss_fn.weight": torch.ones(2), "criterion.ce.weight": torch.ones(3)}),
        ("net.", prefixed("ema_net.", 2)),
        ("model.", prefixed("ema_model.module.", 2)),
        ("", prefixed("ema.", 2)),
        ("student.backbone.", prefixed("teacher.backbone.", 2)),
        ("module.", {"n_averaged": torch.tensor(3)}),
        ("generator.", {"discriminator.0.weight": torch.ones(2)}),
    ],
)
def test_what_training_adds_is_left_aside_and_named(prefix: str, others: dict[str, Tensor]) -> None:
    made = network()
    (note,) = load_state(made, {**others, **prefixed(prefix)}, "w.safetensors")
    check(made)
    assert note.startswith("w.safetensors:")
    assert next(iter(others)).partition(".")[0] in note.partition("left aside")[2]


def test_two_networks_are_ambiguous() -> None:
    state = {**prefixed("encoder_q."), **prefixed("encoder_k.")}
    with pytest.raises(
        ModelError, match=r"under encoder_k\., encoder_q\.; choose .*--entry encoder_k"
    ):
        load_state(network(), state, "w")


def test_loading_stays_strict() -> None:
    for prefix in ("", "model."):
        missing = prefixed(prefix)
        del missing[f"{prefix}2.bias"]
        with pytest.raises(ModelError, match="missing tensor"):
            load_state(network(), missing, "w")
        more = {**prefixed(prefix), f"{prefix}3.bias": torch.ones(1)}
        with pytest.raises(ModelError, match=r"unknown tensor '3\.bias'"):
            load_state(network(), more, "w")
    with pytest.raises(
        ModelError, match=r"missing tensor '0\.weight'; the file has encoder\.\* \(2"
    ):
        load_state(network(), {"encoder.a": torch.ones(1), "encoder.b": torch.ones(1)}, "w")
