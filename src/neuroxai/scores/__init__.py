"""How good a network's answers are: overlap, distance, proportions, ranking, calibration."""
