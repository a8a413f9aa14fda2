"""Training loop: module, losses, schedule, validation, log, resume state."""
