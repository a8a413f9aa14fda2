"""What every method stands on: targets, the probe, the guided rule, explanations."""
