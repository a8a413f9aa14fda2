"""What happens in one step of a training."""

from __future__ import annotations

import copy
import time
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

__all__ = ["TrainingModule", "lightning"]  # Lightning is imported here alone

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class TrainingModule(lightning.LightningModule):  # type: ignore[misc]
    """A network, its loss, and the running average of its weights.

    Parameters
    ----------
    network, loss, config, budget
        What learns, from what, how, and for how long.
    frozen_steps
        First steps in which the layers of ``config.frozen`` rest.
    waited
        Tells the seconds that were waited for batches.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        config: Config,
        budget: Budget,
        *,
        frozen_steps: int = 0,
        waited: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.average = copy.deepcopy(network).eval() if config.average else None
        if self.average is not None:
            # Processes that train together wait for the gradient of everything that asks for one.
            self.average.requires_grad_(requires_grad=False)
        self.config = config
        self.budget = budget
        self.waited = waited
        self._frozen_steps = frozen_steps
        self._frozen = frozen_layers(network, config) if frozen_steps else []
        self._spent = 0.0
        self._earlier = 0.0
        self._began = time.monotonic()

    def elapsed(self) -> float:
        """Seconds trained, those before an interruption included."""
        return self._earlier + time.monotonic() - self._began

    def spend(self) -> float:
        """Return the fraction of the run that is over; the same in all processes that train."""
        spent = self.budget.spent(self.global_step, self.elapsed())
        if self.trainer.world_size > 1:
            # Each has a clock of its own, and if one stopped alone the others would wait for it.
            spent = float(self.trainer.strategy.broadcast(spent))
        self._spent = spent
        return spent

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer; norms and biases do not decay."""
        parameters = [*self.network.parameters(), *self.loss.parameters()]
        kernels = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        kind: Any = _OPTIMIZERS[self.config.optimizer]
        # The 16-bit scaler takes the gradients' scale off before a fused step could.
        made: torch.optim.Optimizer = kind(
            groups, lr=self.config.learning_rate, fused=self.config.precision != "16"
        )
        return made

    def on_fit_start(self) -> None:
        """Choose the layout of the feature maps."""
        channels_last = self.config.channels_last
        if channels_last is None:
            channels_last = self.device.type == "cuda"
        if channels_last:
            spatial = max(p.ndim for p in self.network.parameters())
            layout = torch.channels_last_3d if spatial == 5 else torch.channels_last
            self.network.to(memory_format=layout)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()
        self.spend()
        self.wake()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, wake layers whose rest is over, and reseed."""
        rate = learning_rate(self._spent, self.config)
        for group in self.optimizers().param_groups:
            group["lr"] = rate
        if self._frozen and self.global_step >= self._frozen_steps:
            self._frozen = []
            self.wake()
        # Dropout then depends on the step alone, not on where a run was taken up again.
        part = batch_idx % self.config.accumulate
        turn = (self.global_step * self.config.accumulate + part) * self.trainer.world_size
        torch.manual_seed(self.config.seed * 1_000_003 + turn + self.global_rank)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        x, truth = batch
        value: Tensor = self.loss(self.network(x), truth)
        return value

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the gradients of layers at rest, so that not even the optimizer remembers them."""
        for module in self._frozen:
            for parameter in module.parameters():
                parameter.grad = None

    def wake(self) -> None:
        """Set the network to train, but for layers at rest and frozen norms."""
        self.network.train()
        norms = _norms(self.network) if self.config.frozen_norms else []
        for module in [*self._frozen, *norms]:
            module.train(mode=False)

    def follow(self) -> None:
        """Move the running average towards the new weights."""
        if self.average is None:
            return
        # Early weights are forgotten faster, or the start would stay in the average.
        decay = min(self.config.average, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for kept, new in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the time that was trained."""
        checkpoint["seconds"] = self.elapsed()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the time that was trained."""
        self._earlier = float(checkpoint["seconds"])


def _norms(network: nn.Module) -> list[nn.Module]:
    """Return the layers that keep running statistics."""
    return [
        module
        for module in network.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]


def frozen_layers(network: nn.Module, config: Config) -> list[nn.Module]:
    """Return the layers that rest at first.

    Raises
    ------
    TrainingError
        If the network has no layer of such a name.
    """
    named = dict(network.named_modules())
    for start in config.frozen:
        if not any(name.startswith(start) for name in named):
            raise TrainingError(
                f"frozen: no layer begins with {start!r}; {suggestion(start, named)}"
            )
    return [
        module
        for name, module in named.items()
        if name and any(name.startswith(start) for start in config.frozen)
    ]
