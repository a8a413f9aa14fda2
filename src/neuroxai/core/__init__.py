"""Core of the package: targets, probes, backward rules, explanations; needs torch and numpy."""
