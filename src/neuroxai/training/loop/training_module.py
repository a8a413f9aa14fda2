"""Lightning module of a training: forward pass, optimizer, learning rate, weight average."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.errors import MissingExtraError, TrainingError, suggestion
from neuroxai.training.config.config import Config
from neuroxai.training.loop.schedule import Budget, learning_rate

try:
    import lightning.pytorch as lightning
except ImportError as error:
    raise MissingExtraError("Training", "train", "lightning") from error

__all__ = ["TrainingModule", "lightning"]  # the only import of Lightning

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class TrainingModule(lightning.LightningModule):  # type: ignore[misc]
    """Network with its loss and the exponential moving average of its weights.

    Parameters
    ----------
    network, loss, config, budget
        Network to train, loss, settings and length of the training.
    frozen_steps
        Number of first steps in which the layers of ``config.frozen_layers`` are frozen.
    elapsed, waited
        Seconds of training so far, and the part of them spent waiting for batches.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        config: Config,
        budget: Budget,
        *,
        frozen_steps: int = 0,
        elapsed: Callable[[], float] = lambda: 0.0,
        waited: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.average = copy.deepcopy(network).eval() if config.average else None
        if self.average is not None:
            # Distributed training waits for the gradients of all parameters that require one.
            self.average.requires_grad_(requires_grad=False)
        self.config = config
        self.budget = budget
        self.elapsed = elapsed
        self.waited = waited
        self._frozen_steps = frozen_steps
        self._frozen = frozen_layers(network, config) if frozen_steps else []
        self._progress = 0.0

    def update_progress(self) -> float:
        """Return the fraction of the budget used, identical in all processes."""
        progress = self.budget.progress(self.global_step, self.elapsed())
        if self.trainer.world_size > 1:
            # Clocks differ between processes; one that stops alone would block the others.
            progress = float(self.trainer.strategy.broadcast(progress))
        self._progress = progress
        return progress

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create the optimizer; norms and biases have no weight decay."""
        parameters = [*self.network.parameters(), *self.loss.parameters()]
        kernels = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        kind: Any = _OPTIMIZERS[self.config.optimizer]
        # A fused optimizer unscales 16-bit gradients itself; Lightning cannot clip those.
        optimizer: torch.optim.Optimizer = kind(
            groups, lr=self.config.learning_rate, fused=self.config.precision != "16"
        )
        return optimizer

    def on_fit_start(self) -> None:
        """Convert the network to channels last if configured; by default on a GPU."""
        channels_last = self.config.channels_last
        if channels_last is None:
            channels_last = self.device.type == "cuda"
        if channels_last:
            dims = max(p.ndim for p in self.network.parameters())
            layout = torch.channels_last_3d if dims == 5 else torch.channels_last
            self.network.to(memory_format=layout)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """Set the progress and the modes of the layers."""
        self.update_progress()
        self.set_modes()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, unfreeze layers where due, and seed the random numbers."""
        rate = learning_rate(self._progress, self.config)
        for group in self.optimizers().param_groups:
            group["lr"] = rate
        if self._frozen and self.global_step >= self._frozen_steps:
            self._frozen = []
            self.set_modes()
        # Dropout depends on the batch number alone, so a resumed run repeats it.
        part = batch_idx % self.config.accumulate
        number = (self.global_step * self.config.accumulate + part) * self.trainer.world_size
        torch.manual_seed(self.config.seed * 1_000_003 + number + self.global_rank)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss of one batch."""
        x, truth = batch
        value: Tensor = self.loss(self.network(x), truth)
        return value

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the gradients of frozen layers, which also keeps them out of Adam's moments."""
        for module in self._frozen:
            for parameter in module.parameters():
                parameter.grad = None

    def set_modes(self) -> None:
        """Set the network to training mode, except for frozen layers and frozen norms."""
        self.network.train()
        norms = _running_norms(self.network) if self.config.frozen_norms else []
        for module in [*self._frozen, *norms]:
            module.train(mode=False)

    def update_average(self) -> None:
        """Update the exponential moving average with the current weights."""
        if self.average is None:
            return
        # Early weights decay faster; otherwise the initialization would dominate the average.
        decay = min(self.config.average, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for averaged, current in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if averaged.is_floating_point():
                    averaged.lerp_(current, 1 - decay)
                else:
                    averaged.copy_(current)


def _running_norms(network: nn.Module) -> list[nn.Module]:
    """Layers with running statistics."""
    return [
        module
        for module in network.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]


def frozen_layers(network: nn.Module, config: Config) -> list[nn.Module]:
    """Layers that are frozen in the first epochs.

    Raises
    ------
    TrainingError
        If no layer of the network has one of the configured prefixes.
    """
    named = dict(network.named_modules())
    for prefix in config.frozen_layers:
        if not any(name.startswith(prefix) for name in named):
            raise TrainingError(
                f"frozen_layers: no layer begins with {prefix!r}; {suggestion(prefix, named)}"
            )
    return [
        module
        for name, module in named.items()
        if name and any(name.startswith(prefix) for prefix in config.frozen_layers)
    ]
