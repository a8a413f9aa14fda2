"""The training loop: module, losses, schedule, logs and checkpoints."""
