"""The figures on a trained network's card."""
